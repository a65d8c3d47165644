import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { signingKeyFromSeed, type SigningKey } from "../matrix/signatures.ts";
import { readOrCreateSecretFile } from "./secret-file.ts";

/** The form that Synapse uses too, so that a homeserver's key can be brought along. */
const LINE = /^ed25519 (?<version>[A-Za-z0-9_]+) (?<seed>[A-Za-z0-9+/]{43})=?$/;

/** Reads `ed25519 a_XXXX SEED`, the seed in unpadded base64. @throws Error that says what is expected, not what was held */
export function parseSigningKey(text: string): SigningKey {
  const { version, seed } = LINE.exec(text.trim())?.groups ?? {};
  if (version === undefined || seed === undefined) {
    throw new Error("expected one line `ed25519 a_XXXX SEED`, the seed being 32 bytes in unpadded base64");
  }
  return signingKeyFromSeed(`ed25519:${version}`, Buffer.from(seed, "base64"));
}

function makeSigningKeyLine(): string {
  // A name of its own: a key that was lost and made anew must not bear the old one's id, which others have cached.
  const version = `a_${randomBytes(4).toString("hex")}`;
  return `ed25519 ${version} ${randomBytes(32).toString("base64").replace(/=+$/, "")}\n`;
}

/** Our server's signing key: `signing.key` in the data directory, made at the first start. */
export async function loadSigningKey(dataDir: string): Promise<SigningKey> {
  const path = join(dataDir, "signing.key");
  const text = await readOrCreateSecretFile(path, makeSigningKeyLine);
  try {
    return parseSigningKey(text);
  } catch (error) {
    throw new Error(`${path} is not a signing key: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}
