import type { UserId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject, type JsonValue } from "../matrix/json.ts";
import type { Session } from "./accounts.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** A device of one of our users that others can encrypt to. */
export interface KeyedDevice extends Session {
  readonly displayName: string | null;
  /** As uploaded, without the signatures that came later. */
  readonly keys: JsonObject;
}

/** A one-time or fallback key under its name's two parts. */
export interface NamedKey {
  readonly algorithm: string;
  readonly keyId: string;
  /** As uploaded. */
  readonly key: JsonValue;
}

/** False if the device has just these keys already. */
export async function storeDeviceKeys(tx: Connection, device: Session, keys: JsonObject): Promise<boolean> {
  const text = stringifyJson(keys);
  const written = await execute(
    tx,
    `INSERT INTO device_keys (user_id, device_id, keys) VALUES ($1, $2, $3)
     ON CONFLICT (user_id, device_id) DO UPDATE SET keys = EXCLUDED.keys WHERE device_keys.keys <> EXCLUDED.keys`,
    [device.userId, device.deviceId, text],
  );
  return written === 1;
}

/** The devices of these users that have keys, in the order of users and ids. */
export async function loadDeviceKeys(c: Connection, userIds: readonly UserId[]): Promise<readonly KeyedDevice[]> {
  const rows = await queryRows<{ userId: UserId; deviceId: string; displayName: string | null; keys: string }>(
    c,
    `SELECT user_id AS "userId", device_id AS "deviceId", display_name AS "displayName", keys
     FROM device_keys JOIN devices USING (user_id, device_id) WHERE user_id = ANY ($1::text[])
     ORDER BY user_id COLLATE "C", device_id COLLATE "C"`,
    [userIds],
  );
  return rows.map((row) => ({ ...row, keys: parseJson(row.keys) as JsonObject }));
}

/**
 * Adds one-time keys. One that the device has under the same name already stays as it is.
 *
 * @returns those whose name stands for another key already
 */
export async function addOneTimeKeys(
  tx: Connection,
  device: Session,
  keys: readonly NamedKey[],
): Promise<readonly NamedKey[]> {
  const columns = [
    device.userId,
    device.deviceId,
    keys.map((one) => one.algorithm),
    keys.map((one) => one.keyId),
    keys.map((one) => stringifyJson(one.key)),
  ];
  await execute(
    tx,
    `INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key)
     SELECT $1, $2, algorithm, key_id, key
     FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS added (algorithm, key_id, key, place)
     ORDER BY place ON CONFLICT DO NOTHING`,
    columns,
  );
  const others = await queryRows<{ algorithm: string; keyId: string; key: string }>(
    tx,
    `SELECT algorithm, key_id AS "keyId", held.key FROM one_time_keys held
     JOIN unnest($3::text[], $4::text[], $5::text[]) AS added (algorithm, key_id, key) USING (algorithm, key_id)
     WHERE held.user_id = $1 AND held.device_id = $2 AND held.key <> added.key`,
    columns,
  );
  return others.map((row) => ({ ...row, key: parseJson(row.key) }));
}

/** How many one-time keys a device has left, by algorithm. */
export async function countOneTimeKeys(c: Connection, device: Session): Promise<Readonly<Record<string, number>>> {
  const rows = await queryRows<{ algorithm: string; count: number }>(
    c,
    `SELECT algorithm, count(*)::integer AS count FROM one_time_keys WHERE user_id = $1 AND device_id = $2
     GROUP BY algorithm ORDER BY algorithm COLLATE "C"`,
    [device.userId, device.deviceId],
  );
  return Object.fromEntries(rows.map((row) => [row.algorithm, row.count]));
}

/** A fallback key takes the place of the one of its algorithm, and counts as unused unless it is the same. */
export async function setFallbackKeys(tx: Connection, device: Session, keys: readonly NamedKey[]): Promise<void> {
  await execute(
    tx,
    `INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key)
     SELECT $1, $2, * FROM unnest($3::text[], $4::text[], $5::text[])
     ON CONFLICT (user_id, device_id, algorithm)
       DO UPDATE SET key_id = EXCLUDED.key_id, key = EXCLUDED.key, used = false
       WHERE (fallback_keys.key_id, fallback_keys.key) <> (EXCLUDED.key_id, EXCLUDED.key)`,
    [
      device.userId,
      device.deviceId,
      keys.map((one) => one.algorithm),
      keys.map((one) => one.keyId),
      keys.map((one) => stringifyJson(one.key)),
    ],
  );
}

/** The algorithms of a device's fallback keys that nobody has been given. */
export async function unusedFallbackAlgorithms(c: Connection, device: Session): Promise<readonly string[]> {
  const rows = await queryRows<{ algorithm: string }>(
    c,
    `SELECT algorithm FROM fallback_keys WHERE user_id = $1 AND device_id = $2 AND NOT used
     ORDER BY algorithm COLLATE "C"`,
    [device.userId, device.deviceId],
  );
  return rows.map((row) => row.algorithm);
}

/**
 * Takes a device's oldest one-time key of an algorithm, which nobody else is given then; where none is left, the
 * fallback key.
 */
export async function claimKey(tx: Connection, device: Session, algorithm: string): Promise<NamedKey | undefined> {
  const values = [device.userId, device.deviceId, algorithm];
  const row =
    (await queryRow<{ keyId: string; key: string }>(
      tx,
      // Two who claim at once are given two keys: each skips what the other is about to take.
      `DELETE FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND algorithm = $3 AND key_id = (
         SELECT key_id FROM one_time_keys WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
         ORDER BY key_no LIMIT 1 FOR UPDATE SKIP LOCKED)
       RETURNING key_id AS "keyId", key`,
      values,
    )) ??
    (await queryRow<{ keyId: string; key: string }>(
      tx,
      `UPDATE fallback_keys SET used = true WHERE user_id = $1 AND device_id = $2 AND algorithm = $3
       RETURNING key_id AS "keyId", key`,
      values,
    ));
  return row && { algorithm, keyId: row.keyId, key: parseJson(row.key) };
}
