import type { EventId, ServerName } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf, type StoredEvent } from "./events.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** Puts an event of ours on the list of each server, in the order of stream ids. */
export async function addToOutbox(
  tx: Connection,
  entry: { readonly eventId: EventId; readonly streamId: bigint; readonly destinations: readonly ServerName[] },
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO outbox (destination, stream_id, event_id) SELECT unnest($3::text[]), $1, $2 ON CONFLICT DO NOTHING`,
    [entry.streamId, entry.eventId, entry.destinations],
  );
}

/** Servers that something is to be sent to, in the order of their names. */
export async function outboxDestinations(c: Connection): Promise<readonly ServerName[]> {
  // Jumps from name to name through the index, however long the lists are.
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `WITH RECURSIVE names AS (
       (SELECT destination FROM outbox ORDER BY destination LIMIT 1)
     UNION ALL
       SELECT (SELECT destination FROM outbox WHERE destination > names.destination ORDER BY destination LIMIT 1)
       FROM names WHERE names.destination IS NOT NULL)
     SELECT destination AS name FROM names WHERE destination IS NOT NULL`,
  );
  return rows.map((row) => row.name).toSorted();
}

interface OutboxBatch {
  readonly txnId: string;
  /** Oldest first. */
  readonly events: readonly StoredEvent[];
}

/**
 * The next transaction for a server: the one that was begun before and not acknowledged, under its old id, or else the
 * oldest events under a new id. The id is stored before this returns, so that a repeated sending is known for what it
 * is. One sender at a time per destination.
 */
export async function nextOutboxBatch(
  c: Connection,
  destination: ServerName,
  options: { readonly newTxnId: string; readonly limit: number },
): Promise<OutboxBatch | undefined> {
  const begun = await loadBatch(c, destination);
  if (begun) return begun;
  await execute(
    c,
    `UPDATE outbox SET txn_id = $2 WHERE destination = $1 AND stream_id IN (
       SELECT stream_id FROM outbox WHERE destination = $1 ORDER BY stream_id LIMIT $3)`,
    [destination, options.newTxnId, options.limit],
  );
  return loadBatch(c, destination);
}

async function loadBatch(c: Connection, destination: ServerName): Promise<OutboxBatch | undefined> {
  const rows = await queryRows<Parameters<typeof storedEventOf>[0] & { txnId: string }>(
    c,
    `SELECT outbox.txn_id AS "txnId", ${EVENT_COLUMNS} FROM outbox JOIN events e USING (event_id)
     WHERE outbox.destination = $1 AND outbox.txn_id = (
       SELECT txn_id FROM outbox WHERE destination = $1 AND txn_id IS NOT NULL ORDER BY stream_id LIMIT 1)
     ORDER BY outbox.stream_id`,
    [destination],
  );
  const [first] = rows;
  return first && { txnId: first.txnId, events: rows.map(storedEventOf) };
}

/** Takes an acknowledged transaction off the list. */
export async function deleteOutboxBatch(c: Connection, destination: ServerName, txnId: string): Promise<void> {
  await execute(c, `DELETE FROM outbox WHERE destination = $1 AND txn_id = $2`, [destination, txnId]);
}

/**
 * For a server that has fallen far behind: keeps the newest event of each room alone, from which it can fetch the
 * rest by itself.
 *
 * @returns how many were dropped
 */
export async function keepNewestInOutbox(c: Connection, destination: ServerName): Promise<number> {
  return execute(
    c,
    `DELETE FROM outbox WHERE destination = $1 AND stream_id NOT IN (
       SELECT max(outbox.stream_id) FROM outbox JOIN events USING (event_id)
       WHERE outbox.destination = $1 GROUP BY events.room_id)`,
    [destination],
  );
}
