import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import type { Membership } from "./memberships.ts";
import { queryRow, queryRows, type Connection } from "./query.ts";

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

/**
 * The member event of a user by which their newest event was authorised, of those accepted that arrived since the room
 * was joined.
 */
export async function memberEventNamedBySender(
  c: Connection,
  roomId: RoomId,
  userId: UserId,
): Promise<EventId | undefined> {
  const row = await queryRow<{ id: EventId }>(
    c,
    `WITH sent AS MATERIALIZED (
       SELECT auth_event_ids FROM events
       WHERE room_id = $1 AND sender = $2 AND stream_id > 0 AND rejection IS NULL AND NOT soft_failed
       ORDER BY stream_id DESC LIMIT 1)
     SELECT member.event_id AS id FROM sent JOIN events member ON member.event_id = ANY (sent.auth_event_ids)
     WHERE member.room_id = $1 AND member.type = 'm.room.member' AND member.state_key = $2
       AND member.rejection IS NULL`,
    [roomId, userId],
  );
  return row?.id;
}
