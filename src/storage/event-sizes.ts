import type { EventId } from "../matrix/identifiers.ts";
import { queryRows, type Connection } from "./query.ts";

/** How many bytes the JSON of each of the events has that are stored. Their texts stay where they are. */
export async function eventSizes(c: Connection, ids: readonly EventId[]): Promise<ReadonlyMap<EventId, number>> {
  const rows = await queryRows<{ id: EventId; size: number }>(
    c,
    `SELECT event_id AS id, octet_length(pdu) AS size FROM events WHERE event_id = ANY ($1::text[])`,
    [ids],
  );
  return new Map(rows.map(({ id, size }) => [id, size]));
}
