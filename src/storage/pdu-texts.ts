import type { EventId } from "../matrix/identifiers.ts";
import { queryRows, type Connection } from "./query.ts";

/** The JSON of those of the events that we have, as it is stored: to be passed on unread. */
export async function loadPduTexts(c: Connection, ids: readonly EventId[]): Promise<ReadonlyMap<EventId, string>> {
  const rows = await queryRows<{ id: EventId; pdu: string }>(
    c,
    `SELECT event_id AS id, pdu FROM events WHERE event_id = ANY ($1::text[])`,
    [ids],
  );
  return new Map(rows.map((row) => [row.id, row.pdu]));
}
