import type { EventId, RoomId, ServerName, UserId } from "../matrix/identifiers.ts";
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

/** The leave of a user, told at this position. */
export interface OwnLeave {
  readonly userId: UserId;
  readonly eventId: EventId;
  readonly streamId: bigint;
}

/**
 * The leaves of those of our users who are joined by the current state although they left of their own accord after
 * that join, and have not joined again since. "After" is meant both ways, by arrival and by the events' own clock: a
 * clock that was set back must not make an old leave a new one.
 */
export async function ownLeavesUndone(
  c: Connection,
  roomId: RoomId,
  serverName: ServerName,
): Promise<readonly OwnLeave[]> {
  return queryRows<OwnLeave & { streamId: bigint }>(
    c,
    `SELECT DISTINCT ON (member.user_id) member.user_id AS "userId", own.event_id AS "eventId",
       told.stream_id AS "streamId"
     FROM current_memberships member
     JOIN events joined ON joined.event_id = member.event_id
     JOIN local_membership_stream told
       ON told.user_id = member.user_id AND told.room_id = member.room_id AND told.membership = 'leave'
     JOIN events own
       ON own.event_id = told.event_id AND own.sender = member.user_id AND own.membership = 'leave'
     WHERE member.room_id = $1 AND member.server_name = $2 AND member.membership = 'join'
       AND own.origin_server_ts >= joined.origin_server_ts
       AND coalesce(own.stream_id, told.stream_id) > coalesce(joined.stream_id, 0)
       AND NOT EXISTS (
         SELECT 1 FROM local_membership_stream later JOIN events again ON again.event_id = later.event_id
         WHERE later.user_id = member.user_id AND later.room_id = member.room_id AND again.sender = member.user_id
           AND again.membership = 'join' AND again.rejection IS NULL
           AND (again.stream_id > coalesce(own.stream_id, told.stream_id)
             OR again.origin_server_ts > own.origin_server_ts))
     ORDER BY member.user_id, told.stream_id DESC`,
    [roomId, serverName],
  );
}
