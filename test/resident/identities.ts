import { createHash } from "node:crypto";
import type { ServerName } from "../../src/matrix/identifiers.ts";
import { signingKeyFromSeed } from "../../src/matrix/signatures.ts";
import type { SigningKey, VerifyKey } from "../../src/matrix/signatures.ts";

const keys = new Map<string, SigningKey>();

/** The signing key of one of the resident's servers: the same for the same seed and name, so that rooms can be kept. */
export function identityOf(seed: string, server: ServerName): SigningKey {
  const name = `${seed} ${server}`;
  const known = keys.get(name);
  if (known !== undefined) return known;
  const key = signingKeyFromSeed("ed25519:auto", createHash("sha256").update(`resident key ${name}`).digest());
  keys.set(name, key);
  return key;
}

const DAY_MS = 86_400_000;

export function verifyKeyOf(key: SigningKey): VerifyKey {
  return { publicKey: key.publicKey, validUntilTs: Date.now() + DAY_MS };
}

/** Virtual servers: they sign events, but nothing listens under their names. Their keys come from the resident. */
export function virtualServerName(index: number): ServerName {
  return `server-${String(index).padStart(3, "0")}.rooms.test`;
}

export function isVirtualServer(server: ServerName): boolean {
  return server.endsWith(".rooms.test");
}
