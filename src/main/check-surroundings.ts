import { access, constants, stat } from "node:fs/promises";
import { dirname } from "node:path";
import { loadApplicationServices } from "./load-application-services.ts";
import { ConfigError, type Config } from "./config.ts";
import { SETTINGS } from "./settings.ts";
import { loadAuthorities, loadCertificateFiles } from "./tls.ts";

async function isDirectory(path: string): Promise<boolean | undefined> {
  try {
    return (await stat(path)).isDirectory();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    // Under a file there is nothing, either: the file itself tells, further up.
    if (code === "ENOENT" || code === "ENOTDIR") {
      return undefined;
    }
    throw error;
  }
}

async function checkAsFolder(path: string, mode: number): Promise<void> {
  let folder = path;
  let there = await isDirectory(folder);
  while (there === undefined && dirname(folder) !== folder) {
    folder = dirname(folder);
    there = await isDirectory(folder);
  }
  if (there !== true) {
    throw new Error(`${folder} is not a folder`);
  }
  await access(folder, mode);
}

/**
 * Whether the data directory is one, or can be made where nothing is there yet; and, unless it is only read, written to.
 *
 * @throws ConfigError
 */
export async function checkDataDir(
  { dataDir }: Pick<Config, "dataDir">,
  use: "read" | "write" = "write",
): Promise<void> {
  try {
    await checkAsFolder(dataDir, use === "write" ? constants.W_OK | constants.X_OK : constants.X_OK);
  } catch (error) {
    const { variable, allowed } = SETTINGS.dataDir;
    const cause = error instanceof Error ? error.message : String(error);
    const text = `${variable} holds ${JSON.stringify(dataDir)}, which can't be used (${cause}); allowed: ${allowed}`;
    throw new ConfigError(text, { cause: error });
  }
}

/**
 * Whether the files that the settings name can be used, before any process is started that would need them.
 *
 * @throws ConfigError
 */
export async function checkFiles({
  federationTls,
  caFile,
  applicationServices,
}: Pick<Config, "federationTls" | "caFile" | "applicationServices">): Promise<void> {
  if (federationTls.kind === "files") {
    await loadCertificateFiles(federationTls);
  }
  await loadAuthorities(caFile);
  await loadApplicationServices({ applicationServices });
}
