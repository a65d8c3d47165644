import type { ServerName } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** A server that fails, and when it may be tried again. Times are milliseconds since the epoch. */
export interface DestinationBackOff {
  readonly serverName: ServerName;
  readonly failingSince: number;
  readonly retryAt: number;
  readonly retryIntervalMs: number;
  readonly lastError: string;
  /** Nothing but transactions has failed: it may answer other requests. */
  readonly sendsOnly?: boolean;
}

interface DestinationRow {
  readonly server_name: ServerName;
  readonly failing_since: Date;
  readonly retry_at: Date;
  readonly retry_interval_ms: bigint;
  readonly last_error: string | null;
  readonly sends_only: boolean;
}

const COLUMNS = "server_name, failing_since, retry_at, retry_interval_ms, last_error, sends_only";

function backOffOf(row: DestinationRow): DestinationBackOff {
  return {
    serverName: row.server_name,
    failingSince: row.failing_since.getTime(),
    retryAt: row.retry_at.getTime(),
    retryIntervalMs: Number(row.retry_interval_ms),
    lastError: row.last_error ?? "",
    ...(row.sends_only ? { sendsOnly: true } : {}),
  };
}

/** Undefined for a server that does not fail. */
export async function loadBackOff(c: Connection, server: ServerName): Promise<DestinationBackOff | undefined> {
  const row = await queryRow<DestinationRow>(
    c,
    `SELECT ${COLUMNS} FROM destinations WHERE server_name = $1 AND retry_at IS NOT NULL`,
    [server],
  );
  return row && backOffOf(row);
}

/** All servers that fail. */
export async function listBackOffs(c: Connection): Promise<readonly DestinationBackOff[]> {
  const rows = await queryRows<DestinationRow>(
    c,
    `SELECT ${COLUMNS} FROM destinations WHERE retry_at IS NOT NULL ORDER BY server_name COLLATE "C"`,
  );
  return rows.map(backOffOf);
}

/** Notes a failure; `failingSince` of the first one stays. */
export async function storeBackOff(c: Connection, backOff: DestinationBackOff): Promise<void> {
  await execute(
    c,
    `INSERT INTO destinations (server_name, failing_since, retry_at, retry_interval_ms, last_error, sends_only)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT (server_name) DO UPDATE SET
       failing_since = coalesce(destinations.failing_since, EXCLUDED.failing_since),
       retry_at = EXCLUDED.retry_at, retry_interval_ms = EXCLUDED.retry_interval_ms, last_error = EXCLUDED.last_error,
       sends_only = EXCLUDED.sends_only`,
    [
      backOff.serverName,
      new Date(backOff.failingSince),
      new Date(backOff.retryAt),
      Math.round(backOff.retryIntervalMs),
      backOff.lastError,
      backOff.sendsOnly === true,
    ],
  );
}

/**
 * The server has answered, or has talked to us. True if it was failing.
 *
 * @param keepSends the answer says nothing of transactions: a back-off that they alone have earned stays
 */
export async function clearBackOff(c: Connection, server: ServerName, keepSends = false): Promise<boolean> {
  const sql = `DELETE FROM destinations WHERE server_name = $1 AND NOT (sends_only AND $2)`;
  return (await execute(c, sql, [server, keepSends])) === 1;
}
