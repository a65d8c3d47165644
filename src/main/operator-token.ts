import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { Config } from "./config.ts";
import { readIfThere, readOrCreateSecretFile } from "./secret-file.ts";

function tokenFile(config: Pick<Config, "dataDir">): string {
  return join(config.dataDir, "operator-token");
}

/** The operator API's token: the setting's, or the data directory's, which is made at the first start. */
export async function loadOperatorToken(config: Pick<Config, "dataDir" | "operatorToken">): Promise<string> {
  if (config.operatorToken !== undefined) {
    return config.operatorToken;
  }
  const made = await readOrCreateSecretFile(tokenFile(config), () => `${randomBytes(24).toString("base64url")}\n`);
  return made.trim();
}

/** For the command line, which must not make a token that no running sidecar knows. */
export async function findOperatorToken(config: Pick<Config, "dataDir" | "operatorToken">): Promise<string> {
  const token = config.operatorToken ?? (await readIfThere(tokenFile(config)))?.trim();
  if (token === undefined || token === "") {
    throw new Error(
      `no operator token: ${tokenFile(config)} is not there. Start the sidecar, or set FASTJOIN_DATA_DIR or ` +
        "FASTJOIN_OPERATOR_TOKEN as the running one has it.",
    );
  }
  return token;
}
