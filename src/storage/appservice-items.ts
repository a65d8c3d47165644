import type { EventId, RoomAlias, RoomId, UserId } from "../matrix/identifiers.ts";
import type { PushPlace } from "./appservice-pushes.ts";
import type { Membership } from "./memberships.ts";
import { queryRow, queryRows, type Connection } from "./query.ts";
import { currentStreamPosition, type StreamRange } from "./streams.ts";

/** Something that an application service may have to be told. */
export interface PushItem {
  readonly streamId: bigint;
  readonly kind:
    /** An event arrived. */
    | "event"
    /** One of our users' standing in a room changed, which we may not be in: an invitation. */
    | "membership"
    /** The full state judges an event otherwise than the partial state did. */
    | "judged"
    /** The resync has given a key of the room's state this event. */
    | "state"
    /** The resync has left a key of the room's state, which was this event's, without one. */
    | "gone";
  readonly eventId: EventId;
  readonly roomId: RoomId;
  readonly sender: UserId;
  readonly isState: boolean;
  /** The target of a member event. */
  readonly target: string | null;
  /** The event counts: it is neither rejected nor soft-failed. */
  readonly accepted: boolean;
}

interface ItemRow {
  readonly stream_id: bigint;
  readonly kind: PushItem["kind"];
  readonly event_id: EventId;
  readonly room_id: RoomId | null;
  readonly sender: UserId;
  readonly is_state: boolean;
  readonly target: string | null;
  readonly accepted: boolean;
  readonly told: boolean;
}

interface PushItems {
  readonly items: readonly PushItem[];
  /** The place behind each of them. */
  readonly places: readonly PushPlace[];
  /** The place behind all that was looked at. */
  readonly end: PushPlace;
  /** Nothing stands behind that yet. */
  readonly atEnd: boolean;
}

// The order of items at one position must never change: a place counts them.
const ITEMS = `
  SELECT * FROM (SELECT item.stream_id, item.kind, item.event_id, e.room_id, e.sender, e.state_key IS NOT NULL AS is_state,
    CASE WHEN e.type = 'm.room.member' THEN e.state_key END AS target,
    e.rejection IS NULL AND NOT e.soft_failed AS accepted,
    item.kind <> 'membership' OR (e.outlier AND e.membership = item.key) AS told,
    row_number() OVER (PARTITION BY item.stream_id ORDER BY rank, key COLLATE "C", event_id COLLATE "C") AS number
  FROM (
    SELECT stream_id, 'event' AS kind, event_id, 0 AS rank, '' AS key FROM events
    WHERE stream_id > $1 AND stream_id <= $2
  UNION ALL
    SELECT stream_id, 'membership', event_id, 1, membership FROM local_membership_stream
    WHERE stream_id > $1 AND stream_id <= $2
  UNION ALL
    SELECT stream_id, 'judged', event_id, 2, '' FROM un_partial_stated_event_stream
    WHERE stream_id > $1 AND stream_id <= $2 AND rejection_status_changed
  UNION ALL
    SELECT stream_id, 'judged', event_id, 2, '' FROM un_partial_stated_room_stream
      JOIN resync_event_changes USING (room_id, stream_id)
    WHERE stream_id > $1 AND stream_id <= $2
  UNION ALL
    SELECT stream_id, CASE WHEN event_id IS NULL THEN 'gone' ELSE 'state' END,
      coalesce(event_id, previous_event_id), 3, type || chr(31) || state_key
    FROM current_state_delta_stream delta
    WHERE stream_id > $1 AND stream_id <= $2 AND coalesce(event_id, previous_event_id) IS NOT NULL
      AND (EXISTS (SELECT FROM un_partial_stated_room_stream WHERE stream_id = delta.stream_id)
        OR EXISTS (SELECT FROM un_partial_stated_event_stream WHERE stream_id = delta.stream_id))
  ) AS item LEFT JOIN events e USING (event_id)) AS numbered
  WHERE stream_id > $1 + 1 OR number > $3
  ORDER BY stream_id, number LIMIT $4`;

/**
 * What happened behind a place, in the order of the stream: at most `limit` items, of as many new events.
 */
export async function readPushItems(c: Connection, from: PushPlace, limit: number): Promise<PushItems> {
  // Read before the items: all up to a position that was seen can be seen.
  const current = await currentStreamPosition(c);
  const window = await queryRow<{ end: bigint }>(
    c,
    `SELECT stream_id AS end FROM events WHERE stream_id > $1 ORDER BY stream_id OFFSET $2 LIMIT 1`,
    [from.position, limit - 1],
  );
  const to = window === undefined || window.end > current ? current : window.end;
  const rows = await queryRows<ItemRow>(c, ITEMS, [from.position, to, from.items, limit]);
  const told: PushItem[] = [];
  const places: PushPlace[] = [];
  let place = from;
  for (const row of rows) {
    const before = row.stream_id - 1n;
    place = { position: before, items: place.position === before ? place.items + 1 : 1 };
    // Of a room that was purged nothing is told.
    if (row.room_id === null || !row.told) continue;
    told.push(itemOf(row, row.room_id));
    places.push(place);
  }
  if (rows.length === limit) return { items: told, places, end: place, atEnd: false };
  const end = to > from.position ? { position: to, items: 0 } : from;
  return { items: told, places, end, atEnd: to === current };
}

function itemOf(row: ItemRow, roomId: RoomId): PushItem {
  const { kind, sender, target, accepted, stream_id: streamId, event_id: eventId, is_state: isState } = row;
  return { streamId, kind, eventId, roomId, sender, isState, target, accepted };
}

export interface LocalMembershipAt {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly membership: Membership;
  readonly streamId: bigint;
}

/** Where our users stood in the rooms at the beginning of the range, and how that changed within it; oldest first. */
export async function localMembershipsThrough(
  c: Connection,
  roomIds: readonly RoomId[],
  range: StreamRange,
): Promise<readonly LocalMembershipAt[]> {
  return queryRows<LocalMembershipAt & { streamId: bigint }>(
    c,
    `SELECT room_id AS "roomId", user_id AS "userId", membership, stream_id AS "streamId" FROM (
         (SELECT DISTINCT ON (room_id, user_id) * FROM local_membership_stream
          WHERE room_id = ANY ($1::text[]) AND stream_id <= $2 ORDER BY room_id, user_id, stream_id DESC)
       UNION ALL
         SELECT * FROM local_membership_stream
         WHERE room_id = ANY ($1::text[]) AND stream_id > $2 AND stream_id <= $3) AS membership
     ORDER BY stream_id`,
    [roomIds, range.from, range.to],
  );
}

/** The aliases of this server that rooms have now. */
export async function aliasesOfRooms(
  c: Connection,
  roomIds: readonly RoomId[],
): Promise<ReadonlyMap<RoomId, readonly RoomAlias[]>> {
  const rows = await queryRows<{ roomId: RoomId; aliases: RoomAlias[] }>(
    c,
    `SELECT room_id AS "roomId", array_agg(room_alias) AS aliases FROM room_aliases
     WHERE room_id = ANY ($1::text[]) GROUP BY room_id`,
    [roomIds],
  );
  return new Map(rows.map((row) => [row.roomId, row.aliases]));
}
