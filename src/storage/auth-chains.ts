import type { EventId } from "../matrix/identifiers.ts";
import { queryRows, type Connection } from "./query.ts";

/** The auth chain of the events, without those of them that are in no other's chain; only events that we have. */
export async function authChainIds(c: Connection, ids: readonly EventId[]): Promise<EventId[]> {
  // UNION (not UNION ALL) visits each event once, however many paths lead to it.
  const rows = await queryRows<{ id: EventId }>(
    c,
    `WITH RECURSIVE chain (event_id) AS (
        SELECT edge.event_id FROM events CROSS JOIN LATERAL unnest(events.auth_event_ids) AS edge (event_id)
        WHERE events.event_id = ANY ($1::text[])
      UNION
        SELECT edge.event_id FROM chain
        JOIN events ON events.event_id = chain.event_id
        CROSS JOIN LATERAL unnest(events.auth_event_ids) AS edge (event_id)
      )
      SELECT event_id AS id FROM chain JOIN events USING (event_id)`,
    [ids],
  );
  return rows.map((row) => row.id);
}
