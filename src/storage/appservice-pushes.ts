import { execute, queryRow, type Connection } from "./query.ts";

/** A place in what happens: all of the stream up to `position`, and so many items of the position behind it. */
export interface PushPlace {
  readonly position: bigint;
  readonly items: number;
}

interface BegunPush {
  readonly txnId: string;
  /** The JSON that is sent. */
  readonly body: string;
  readonly upTo: PushPlace;
}

/** A service that fails, and when it may be tried again. Times are milliseconds since the epoch. */
interface PushBackOff {
  readonly failingSince: number;
  readonly retryAt: number;
  readonly retryIntervalMs: number;
  readonly lastError: string;
}

interface PushState {
  /** All before it is acknowledged. */
  readonly place: PushPlace;
  /** Sent, maybe, and not acknowledged. */
  readonly begun: BegunPush | undefined;
  readonly backOff: PushBackOff | undefined;
}

interface PushRow {
  readonly position: bigint;
  readonly items: number;
  readonly txn_id: string | null;
  readonly txn_body: string | null;
  readonly txn_position: bigint | null;
  readonly txn_items: number | null;
  readonly failing_since: Date | null;
  readonly retry_at: Date | null;
  readonly retry_interval_ms: bigint | null;
  readonly last_error: string | null;
}

/** A service that is not known yet is told of what happens from now on. */
export async function introduceAppservice(c: Connection, id: string): Promise<void> {
  await execute(
    c,
    `INSERT INTO appservice_pushes (appservice_id, position) SELECT $1, position FROM stream_position
     ON CONFLICT DO NOTHING`,
    [id],
  );
}

/** Undefined for a service that was never introduced. */
export async function loadPushState(c: Connection, id: string): Promise<PushState | undefined> {
  const row = await queryRow<PushRow>(
    c,
    `SELECT position, items, txn_id, txn_body, txn_position, txn_items, failing_since, retry_at, retry_interval_ms,
       last_error
     FROM appservice_pushes WHERE appservice_id = $1`,
    [id],
  );
  return row && { place: { position: row.position, items: row.items }, begun: begunOf(row), backOff: backOffOf(row) };
}

function begunOf(row: PushRow): BegunPush | undefined {
  const { txn_id: txnId, txn_body: body, txn_position: position, txn_items: items } = row;
  if (txnId === null || body === null || position === null || items === null) return undefined;
  return { txnId, body, upTo: { position, items } };
}

function backOffOf(row: PushRow): PushBackOff | undefined {
  if (row.retry_at === null) return undefined;
  return {
    failingSince: (row.failing_since ?? row.retry_at).getTime(),
    retryAt: row.retry_at.getTime(),
    retryIntervalMs: Number(row.retry_interval_ms ?? 0n),
    lastError: row.last_error ?? "",
  };
}

/** Moves on over what the service is not interested in. False if another process has been faster. */
export async function skipTo(c: Connection, id: string, from: PushPlace, to: PushPlace): Promise<boolean> {
  const written = await execute(
    c,
    `UPDATE appservice_pushes SET position = $4, items = $5
     WHERE appservice_id = $1 AND position = $2 AND items = $3 AND txn_id IS NULL`,
    [id, from.position, from.items, to.position, to.items],
  );
  return written === 1;
}

/** Stores a transaction before it is sent. False if another process has been faster. */
export async function beginPush(c: Connection, id: string, from: PushPlace, push: BegunPush): Promise<boolean> {
  const written = await execute(
    c,
    `UPDATE appservice_pushes SET txn_id = $4, txn_body = $5, txn_position = $6, txn_items = $7
     WHERE appservice_id = $1 AND position = $2 AND items = $3 AND txn_id IS NULL`,
    [id, from.position, from.items, push.txnId, push.body, push.upTo.position, push.upTo.items],
  );
  return written === 1;
}

/** The transaction is acknowledged, and the service works. */
export async function endPush(c: Connection, id: string, txnId: string): Promise<void> {
  await execute(
    c,
    `UPDATE appservice_pushes SET position = txn_position, items = txn_items,
       txn_id = NULL, txn_body = NULL, txn_position = NULL, txn_items = NULL,
       failing_since = NULL, retry_at = NULL, retry_interval_ms = NULL, last_error = NULL
     WHERE appservice_id = $1 AND txn_id = $2`,
    [id, txnId],
  );
}

/** Notes a failure; `failingSince` of the first one stays. */
export async function storePushBackOff(c: Connection, id: string, backOff: PushBackOff): Promise<void> {
  await execute(
    c,
    `UPDATE appservice_pushes SET failing_since = coalesce(failing_since, $2), retry_at = $3, retry_interval_ms = $4,
       last_error = $5 WHERE appservice_id = $1`,
    [
      id,
      new Date(backOff.failingSince),
      new Date(backOff.retryAt),
      Math.round(backOff.retryIntervalMs),
      backOff.lastError,
    ],
  );
}

/** How many services do not take their transactions. */
export async function countFailingAppservices(c: Connection): Promise<number> {
  const row = await queryRow<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM appservice_pushes WHERE retry_at IS NOT NULL`,
  );
  return row?.count ?? 0;
}

/** The service has shown that it works: it need not wait for the end of its back-off. */
export async function endPushBackOff(c: Connection, id: string): Promise<void> {
  await execute(
    c,
    `UPDATE appservice_pushes SET failing_since = NULL, retry_at = NULL, retry_interval_ms = NULL, last_error = NULL
     WHERE appservice_id = $1 AND retry_at IS NOT NULL`,
    [id],
  );
}
