import type { EventId } from "../matrix/identifiers.ts";
import type { Membership } from "./memberships.ts";
import { queryRows, type Connection } from "./query.ts";

/** The memberships that membership events give, without reading the events. */
export async function loadMemberships(
  c: Connection,
  ids: readonly EventId[],
): Promise<ReadonlyMap<EventId, Membership>> {
  const rows = await queryRows<{ id: EventId; membership: Membership }>(
    c,
    `SELECT event_id AS id, membership FROM events WHERE event_id = ANY ($1::text[]) AND membership IS NOT NULL`,
    [ids],
  );
  return new Map(rows.map((row) => [row.id, row.membership]));
}
