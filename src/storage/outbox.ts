import { MAX_TRANSACTION_EDUS } from "../federation-api/endpoints.ts";
import type { EventId, ServerName } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf, type StoredEvent } from "./events.ts";
import { dropPassingEdus, loadOutboxEdus, type OutgoingEdu } from "./outbox-edus.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

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
  // Jumps from name to name through the indexes, however long the lists are.
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `WITH RECURSIVE names (name) AS (
       SELECT least((SELECT min(destination) FROM outbox), (SELECT min(destination) FROM outbox_edus))
     UNION ALL
       SELECT least((SELECT min(destination) FROM outbox WHERE destination > name),
                    (SELECT min(destination) FROM outbox_edus WHERE destination > name))
       FROM names WHERE name IS NOT NULL)
     SELECT name FROM names WHERE name IS NOT NULL`,
  );
  return rows.map((row) => row.name).toSorted();
}

interface OutboxBatch {
  readonly txnId: string;
  /** Oldest first. */
  readonly events: readonly StoredEvent[];
  /** Oldest first. */
  readonly edus: readonly OutgoingEdu[];
}

interface NewOutboxBatch {
  readonly newTxnId: string;
  /** Of events. */
  readonly limit: number;
  /** As many as a transaction may hold, unless given. */
  readonly eduLimit?: number;
}

/**
 * The next transaction for a server: the one that was begun before and not acknowledged, under its old id and with its
 * own events and EDUs, or else the oldest ones under a new id. The id is stored before this returns, so that a repeated
 * sending is known for what it is. One sender at a time per destination.
 */
export async function nextOutboxBatch(
  c: Connection,
  destination: ServerName,
  options: NewOutboxBatch,
): Promise<OutboxBatch | undefined> {
  const begun = await loadBatch(c, destination);
  if (begun) return begun;
  // One statement: what belongs to a transaction is settled for both lists at once.
  await execute(
    c,
    `WITH chosen_edus AS (
       UPDATE outbox_edus SET txn_id = $2 WHERE edu_id IN (
         SELECT edu_id FROM outbox_edus WHERE destination = $1 ORDER BY edu_id LIMIT $4))
     UPDATE outbox SET txn_id = $2 WHERE destination = $1 AND stream_id IN (
       SELECT stream_id FROM outbox WHERE destination = $1 ORDER BY stream_id LIMIT $3)`,
    [destination, options.newTxnId, options.limit, options.eduLimit ?? MAX_TRANSACTION_EDUS],
  );
  return loadBatch(c, destination);
}

async function loadBatch(c: Connection, destination: ServerName): Promise<OutboxBatch | undefined> {
  const begun = await queryRow<{ txnId: string | null }>(
    c,
    `SELECT coalesce(
       (SELECT txn_id FROM outbox WHERE destination = $1 AND txn_id IS NOT NULL ORDER BY stream_id LIMIT 1),
       (SELECT txn_id FROM outbox_edus WHERE destination = $1 AND txn_id IS NOT NULL ORDER BY edu_id LIMIT 1)
     ) AS "txnId"`,
    [destination],
  );
  const txnId = begun?.txnId ?? null;
  if (txnId === null) return undefined;
  const rows = await queryRows<Parameters<typeof storedEventOf>[0]>(
    c,
    `SELECT ${EVENT_COLUMNS} FROM outbox JOIN events e USING (event_id)
     WHERE outbox.destination = $1 AND outbox.txn_id = $2 ORDER BY outbox.stream_id`,
    [destination, txnId],
  );
  return { txnId, events: rows.map(storedEventOf), edus: await loadOutboxEdus(c, destination, txnId) };
}

/** Takes an acknowledged transaction off the list. */
export async function deleteOutboxBatch(c: Connection, destination: ServerName, txnId: string): Promise<void> {
  await execute(
    c,
    `WITH edus AS (DELETE FROM outbox_edus WHERE destination = $1 AND txn_id = $2)
     DELETE FROM outbox WHERE destination = $1 AND txn_id = $2`,
    [destination, txnId],
  );
}

/**
 * For a server that has fallen far behind: keeps the newest event of each room alone, from which it can fetch the
 * rest by itself, and of the EDUs those that nothing later makes up for.
 *
 * @returns how many were dropped
 */
export async function keepNewestInOutbox(c: Connection, destination: ServerName): Promise<number> {
  const events = await execute(
    c,
    `DELETE FROM outbox WHERE destination = $1 AND stream_id NOT IN (
       SELECT max(outbox.stream_id) FROM outbox JOIN events USING (event_id)
       WHERE outbox.destination = $1 GROUP BY events.room_id)`,
    [destination],
  );
  return events + (await dropPassingEdus(c, destination));
}

/** Sends these events to no further server, not even in a transaction that was begun. */
export async function withdrawFromOutbox(tx: Connection, eventIds: readonly EventId[]): Promise<void> {
  await execute(tx, `DELETE FROM outbox WHERE event_id = ANY ($1::text[])`, [eventIds]);
}
