import type { ServerKeysResponse } from "../federation-api/endpoints.ts";
import { isKeyId } from "../matrix/identifiers.ts";
import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import { verifyJsonSignature } from "../matrix/signatures.ts";
import type { VerifyKey } from "../matrix/signatures.ts";
import type { ServerKeyRow } from "../storage/server-keys.ts";

/** What is known of a server's keys, old ones included. */
export type ServerKeySet = ReadonlyMap<KeyId, VerifyKey>;

const DAY_MS = 24 * 60 * 60_000;
/** However long a server says that its keys are valid: so often must they be asked for again. */
const MAX_TRUST_MS = 7 * DAY_MS;
const PUBLIC_KEY_BYTES = 32;

function publicKeyOf(base64: string): Uint8Array | undefined {
  const bytes = Buffer.from(base64, "base64");
  return bytes.length === PUBLIC_KEY_BYTES ? bytes : undefined;
}

/** The Ed25519 keys of a response; keys that can't be read are left out. */
export function keySetOf(response: ServerKeysResponse, now: number): ServerKeySet {
  const keys = new Map<KeyId, VerifyKey>();
  for (const [keyId, { key, expired_ts: expiredTs }] of Object.entries(response.old_verify_keys ?? {})) {
    const publicKey = publicKeyOf(key);
    if (isKeyId(keyId) && publicKey !== undefined) keys.set(keyId, { publicKey, validUntilTs: expiredTs, expiredTs });
  }
  const validUntilTs = Math.min(response.valid_until_ts, now + MAX_TRUST_MS);
  for (const [keyId, { key }] of Object.entries(response.verify_keys)) {
    const publicKey = publicKeyOf(key);
    if (isKeyId(keyId) && publicKey !== undefined) keys.set(keyId, { publicKey, validUntilTs });
  }
  return keys;
}

function isSignedBy(response: ServerKeysResponse, server: ServerName, keys: ServerKeySet): boolean {
  for (const [keyId, { publicKey, expiredTs }] of keys) {
    if (expiredTs === undefined && verifyJsonSignature(response, server, keyId, publicKey)) return true;
  }
  return false;
}

/**
 * Whether a response is signed by one of the current keys that it names.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
 */
export function isSelfSigned(response: ServerKeysResponse, now: number): boolean {
  return isSignedBy(response, response.server_name, keySetOf(response, now));
}

/** Whether a notary vouches for a response by one of its own current keys. */
export function isVouchedFor(response: ServerKeysResponse, notary: ServerName, notaryKeys: ServerKeySet): boolean {
  return isSignedBy(response, notary, notaryKeys);
}

/** A key is never brought back by an answer that is older than the one that said it had expired. */
function newerOf(known: VerifyKey | undefined, told: VerifyKey): VerifyKey {
  if (known === undefined || Buffer.compare(known.publicKey, told.publicKey) !== 0) return told;
  if (told.expiredTs !== undefined) return told;
  return known.expiredTs !== undefined || known.validUntilTs > told.validUntilTs ? known : told;
}

/** Both together: what one source no longer tells, another's events may still be signed with. */
export function mergeKeySets(known: ServerKeySet, told: ServerKeySet): ServerKeySet {
  const merged = new Map(known);
  for (const [keyId, key] of told) merged.set(keyId, newerOf(known.get(keyId), key));
  return merged;
}

/** Whether the key can serve an event or a request of the time `atTs`, as far as we have been told. */
export function isFresh(key: VerifyKey | undefined, atTs: number): boolean {
  return key !== undefined && (key.expiredTs !== undefined || key.validUntilTs >= atTs);
}

export function rowsOf(serverName: ServerName, keys: ServerKeySet, fetchedAt: number): readonly ServerKeyRow[] {
  return [...keys].map(([keyId, { publicKey, validUntilTs, expiredTs }]) => ({
    serverName,
    keyId,
    publicKey: Buffer.from(publicKey).toString("base64").replace(/=+$/, ""),
    validUntilTs,
    fetchedAt,
    ...(expiredTs === undefined ? {} : { expiredTs }),
  }));
}

export function keySetsOfRows(rows: readonly ServerKeyRow[]): ReadonlyMap<ServerName, ServerKeySet> {
  const sets = new Map<ServerName, Map<KeyId, VerifyKey>>();
  for (const { serverName, keyId, publicKey, validUntilTs, expiredTs } of rows) {
    const keys = sets.get(serverName) ?? new Map<KeyId, VerifyKey>();
    const known = { publicKey: Buffer.from(publicKey, "base64"), validUntilTs };
    keys.set(keyId, expiredTs === undefined ? known : { ...known, expiredTs });
    sets.set(serverName, keys);
  }
  return sets;
}
