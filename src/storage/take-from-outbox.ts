import type { EventId, ServerName } from "../matrix/identifiers.ts";
import { queryRows, type Connection } from "./query.ts";

/** An entry of the outbox: an event and a server that is to get it. */
export interface OutboxEntry {
  readonly eventId: EventId;
  readonly server: ServerName;
}

/**
 * Takes entries off the lists of servers that are not to get them after all. What a transaction holds that was begun
 * may have arrived, so that it stays.
 *
 * @returns those that were taken off
 */
export async function takeFromOutbox(tx: Connection, entries: readonly OutboxEntry[]): Promise<readonly OutboxEntry[]> {
  if (entries.length === 0) return [];
  return queryRows<OutboxEntry & { eventId: EventId }>(
    tx,
    `DELETE FROM outbox USING unnest($1::text[], $2::text[]) AS unwanted (event_id, server)
     WHERE outbox.event_id = unwanted.event_id AND outbox.destination = unwanted.server AND outbox.txn_id IS NULL
     RETURNING outbox.event_id AS "eventId", outbox.destination AS server`,
    [entries.map((entry) => entry.eventId), entries.map((entry) => entry.server)],
  );
}
