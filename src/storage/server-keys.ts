import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** Times are milliseconds since the epoch. */
export interface ServerKeyRow {
  readonly serverName: ServerName;
  readonly keyId: KeyId;
  /** Unpadded base64. */
  readonly publicKey: string;
  readonly validUntilTs: number;
  /** Of an old key. */
  readonly expiredTs?: number;
  readonly fetchedAt: number;
}

interface Row {
  readonly server_name: ServerName;
  readonly key_id: KeyId;
  readonly public_key: string;
  readonly valid_until_ts: bigint;
  readonly expired_ts: bigint | null;
  readonly fetched_at: Date;
}

/** Remembers keys; what was known of the same ones is replaced. At most one row per server and key. */
export async function storeServerKeys(c: Connection, keys: readonly ServerKeyRow[]): Promise<void> {
  // In one order everywhere: two writers of the same keys would else lock each other out.
  const sorted = keys.toSorted((a, b) => (`${a.serverName} ${a.keyId}` < `${b.serverName} ${b.keyId}` ? -1 : 1));
  await execute(
    c,
    `INSERT INTO server_keys (server_name, key_id, public_key, valid_until_ts, expired_ts, fetched_at)
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::timestamptz[])
     ON CONFLICT (server_name, key_id) DO UPDATE SET public_key = EXCLUDED.public_key,
       valid_until_ts = EXCLUDED.valid_until_ts, expired_ts = EXCLUDED.expired_ts, fetched_at = EXCLUDED.fetched_at`,
    [
      sorted.map((key) => key.serverName),
      sorted.map((key) => key.keyId),
      sorted.map((key) => key.publicKey),
      sorted.map((key) => key.validUntilTs),
      sorted.map((key) => key.expiredTs ?? null),
      sorted.map((key) => new Date(key.fetchedAt)),
    ],
  );
}

/** All keys that are remembered of the servers. */
export async function loadServerKeys(c: Connection, servers: readonly ServerName[]): Promise<readonly ServerKeyRow[]> {
  const rows = await queryRows<Row>(
    c,
    `SELECT server_name, key_id, public_key, valid_until_ts, expired_ts, fetched_at FROM server_keys
     WHERE server_name = ANY ($1::text[])`,
    [servers],
  );
  return rows.map((row) => ({
    serverName: row.server_name,
    keyId: row.key_id,
    publicKey: row.public_key,
    validUntilTs: Number(row.valid_until_ts),
    ...(row.expired_ts === null ? {} : { expiredTs: Number(row.expired_ts) }),
    fetchedAt: row.fetched_at.getTime(),
  }));
}
