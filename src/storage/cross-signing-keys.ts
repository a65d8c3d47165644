import type { UserId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject } from "../matrix/json.ts";
import { execute, queryRows, type Connection } from "./query.ts";

export type KeyUsage = "master" | "self_signing" | "user_signing";

export type CrossSigningKeys = Partial<Readonly<Record<KeyUsage, JsonObject>>>;

/** The cross-signing keys of our users, and of others as their servers told them, by user. */
export async function loadCrossSigningKeys(
  c: Connection,
  userIds: readonly UserId[],
): Promise<ReadonlyMap<UserId, CrossSigningKeys>> {
  const rows = await queryRows<{ userId: UserId; usage: KeyUsage; key: string }>(
    c,
    `SELECT user_id AS "userId", usage, key FROM cross_signing_keys WHERE user_id = ANY ($1::text[])`,
    [userIds],
  );
  const keys = new Map<UserId, CrossSigningKeys>();
  for (const { userId, usage, key } of rows) {
    keys.set(userId, { ...keys.get(userId), [usage]: parseJson(key) as JsonObject });
  }
  return keys;
}

/** Stores the keys that are given and leaves the user's others as they are. */
export async function storeCrossSigningKeys(tx: Connection, userId: UserId, keys: CrossSigningKeys): Promise<void> {
  const entries = Object.entries(keys);
  await execute(
    tx,
    `INSERT INTO cross_signing_keys (user_id, usage, key) SELECT $1, * FROM unnest($2::text[], $3::text[])
     ON CONFLICT (user_id, usage) DO UPDATE SET key = EXCLUDED.key`,
    [userId, entries.map(([usage]) => usage), entries.map(([, key]) => stringifyJson(key))],
  );
}

export async function deleteCrossSigningKeys(tx: Connection, userIds: readonly UserId[]): Promise<void> {
  await execute(tx, `DELETE FROM cross_signing_keys WHERE user_id = ANY ($1::text[])`, [userIds]);
}

export interface KeySignature {
  readonly targetUserId: UserId;
  /** A device's id, or the public key of a cross-signing key. */
  readonly targetKey: string;
  readonly signerUserId: UserId;
  /** With its algorithm. */
  readonly signerKeyId: string;
  readonly signature: string;
}

/** Stores signatures; a new one by the same key takes the place of the old. */
export async function storeKeySignatures(tx: Connection, signatures: readonly KeySignature[]): Promise<void> {
  await execute(
    tx,
    `INSERT INTO key_signatures (target_user_id, target_key, signer_user_id, signer_key_id, signature)
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
     ON CONFLICT (target_user_id, target_key, signer_user_id, signer_key_id)
       DO UPDATE SET signature = EXCLUDED.signature`,
    [
      signatures.map((one) => one.targetUserId),
      signatures.map((one) => one.targetKey),
      signatures.map((one) => one.signerUserId),
      signatures.map((one) => one.signerKeyId),
      signatures.map((one) => one.signature),
    ],
  );
}

/** The signatures under keys of these users by themselves, and those by `viewer`: nobody else is to see the latter. */
export async function loadKeySignatures(
  c: Connection,
  userIds: readonly UserId[],
  viewer?: UserId,
): Promise<readonly KeySignature[]> {
  return queryRows<KeySignature & { signature: string }>(
    c,
    `SELECT target_user_id AS "targetUserId", target_key AS "targetKey", signer_user_id AS "signerUserId",
       signer_key_id AS "signerKeyId", signature
     FROM key_signatures
     WHERE target_user_id = ANY ($1::text[]) AND signer_user_id IN (target_user_id, $2)`,
    [userIds, viewer ?? null],
  );
}

/** Forgets the signatures under the keys of devices that are gone, or that were given other keys. */
export async function deleteKeySignatures(
  tx: Connection,
  targetUserId: UserId,
  targetKeys: readonly string[],
): Promise<void> {
  await execute(tx, `DELETE FROM key_signatures WHERE target_user_id = $1 AND target_key = ANY ($2::text[])`, [
    targetUserId,
    targetKeys,
  ]);
}
