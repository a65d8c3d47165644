import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** A room is fully joined exactly when it has no such row. */
export interface PartialRoom {
  readonly roomId: RoomId;
  /** The join whose resync this is; a resync of another join is superseded. */
  readonly joinEventId: EventId | null;
  readonly joinedVia: ServerName | null;
  /** Our device-list position at the join. */
  readonly deviceListsStreamId: bigint;
}

const PARTIAL_ROOM_COLUMNS = `room_id AS "roomId", join_event_id AS "joinEventId", joined_via AS "joinedVia",
  device_lists_stream_id AS "deviceListsStreamId"`;

export async function partialRoom(c: Connection, roomId: RoomId): Promise<PartialRoom | undefined> {
  return queryRow<PartialRoom>(c, `SELECT ${PARTIAL_ROOM_COLUMNS} FROM partial_state_rooms WHERE room_id = $1`, [
    roomId,
  ]);
}

/** As {@link partialRoom}, locked until the transaction ends; events can still be marked partial meanwhile. */
export async function lockPartialRoom(tx: Connection, roomId: RoomId): Promise<PartialRoom | undefined> {
  return queryRow<PartialRoom>(
    tx,
    `SELECT ${PARTIAL_ROOM_COLUMNS} FROM partial_state_rooms WHERE room_id = $1 FOR NO KEY UPDATE`,
    [roomId],
  );
}

/** The row is there until the transaction ends, whoever else changes the room. */
export async function holdPartialRoom(tx: Connection, roomId: RoomId): Promise<PartialRoom | undefined> {
  return queryRow<PartialRoom>(
    tx,
    `SELECT ${PARTIAL_ROOM_COLUMNS} FROM partial_state_rooms WHERE room_id = $1 FOR KEY SHARE`,
    [roomId],
  );
}

export async function listPartialRooms(c: Connection): Promise<readonly PartialRoom[]> {
  return queryRows<PartialRoom>(
    c,
    `SELECT ${PARTIAL_ROOM_COLUMNS} FROM partial_state_rooms ORDER BY room_id COLLATE "C"`,
  );
}

/** Marks the room as partially joined. @throws StorageConflict "unique" if it is already */
export async function insertPartialRoom(tx: Connection, room: PartialRoom): Promise<void> {
  await execute(
    tx,
    `INSERT INTO partial_state_rooms (room_id, join_event_id, joined_via, device_lists_stream_id)
     VALUES ($1, $2, $3, $4)`,
    [room.roomId, room.joinEventId, room.joinedVia, room.deviceListsStreamId],
  );
}

/** Servers believed to be in the room. @throws PartialRoomGone */
export async function addPartialRoomServers(
  tx: Connection,
  roomId: RoomId,
  servers: readonly ServerName[],
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO partial_state_rooms_servers (room_id, server_name) SELECT $1, unnest($2::text[])
     ON CONFLICT DO NOTHING`,
    [roomId, servers],
  );
}

/** In the order of their names. */
export async function partialRoomServers(c: Connection, roomId: RoomId): Promise<readonly ServerName[]> {
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `SELECT server_name AS name FROM partial_state_rooms_servers WHERE room_id = $1 ORDER BY server_name COLLATE "C"`,
    [roomId],
  );
  return rows.map((row) => row.name);
}

/**
 * Marks a stored event as known on partial state only.
 *
 * @throws PartialRoomGone if the room was cleared meanwhile: compute the event's state anew
 * @throws StorageConflict "check" if the event is another room's
 */
export async function markPartial(tx: Connection, roomId: RoomId, eventId: EventId): Promise<void> {
  await markEachPartial(tx, [{ roomId, eventId }]);
}

/** The same for several events. */
export async function markEachPartial(
  tx: Connection,
  events: readonly { readonly roomId: RoomId; readonly eventId: EventId }[],
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO partial_state_events (room_id, event_id) SELECT * FROM unnest($1::text[], $2::text[])
     ON CONFLICT (event_id) DO NOTHING`,
    [events.map(({ roomId }) => roomId), events.map(({ eventId }) => eventId)],
  );
}

/** Those of the events that are marked partial. */
export async function partialEventIds(c: Connection, ids: readonly EventId[]): Promise<Set<EventId>> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM partial_state_events WHERE event_id = ANY ($1::text[])`,
    [ids],
  );
  return new Set(rows.map((row) => row.id));
}

/**
 * Partial events in an order in which each can be repaired, the earliest arrivals first: what it builds on and what
 * authorizes it is known in full, or stands before it. So many of those, as many that build on no partial event, which a
 * hundred behind one that can't be repaired must not keep from their turn, and as many that surely lack no state, which
 * a hundred that each lack one must not.
 */
export async function nextRepairableEvents(
  c: Connection,
  roomId: RoomId,
  limit: number,
): Promise<readonly RepairableEvent[]> {
  const rows = await queryRows<RepairableEvent & { eventId: EventId }>(
    c,
    `WITH partial AS (
       SELECT event_id, stream_id, prev_event_ids, prev_event_ids || auth_event_ids AS past_ids
       FROM partial_state_events JOIN events USING (event_id) WHERE partial_state_events.room_id = $1),
     first AS (
       SELECT * FROM partial WHERE NOT EXISTS (
         SELECT 1 FROM partial_state_events past WHERE past.event_id = ANY (past_ids))),
     whole AS (
       SELECT * FROM first WHERE ${IS_DROPPED} OR NOT EXISTS (
         SELECT 1 FROM unnest(prev_event_ids) AS prev (id) WHERE NOT ${HAS_STATE}))
     SELECT event_id AS "eventId", ARRAY(
         SELECT past.event_id FROM partial_state_events past WHERE past.event_id = ANY (past_ids)
       ) AS "after"
     FROM (
         (SELECT * FROM partial ORDER BY stream_id LIMIT $2)
       UNION
         (SELECT * FROM first ORDER BY stream_id LIMIT $2)
       UNION
         (SELECT * FROM whole ORDER BY stream_id LIMIT $2)) AS next
     ORDER BY stream_id`,
    [roomId, limit],
  );
  return inRepairableOrder(rows);
}

const IS_DROPPED = `EXISTS (SELECT 1 FROM resync_drops dropped WHERE dropped.event_id = first.event_id)`;

/** Of a prev_event: it is in the room's timeline with its state, or its state was fetched. */
const HAS_STATE = `EXISTS (
  SELECT 1 FROM events known WHERE known.event_id = prev.id AND (
    (known.room_id = $1 AND NOT known.outlier AND known.state_after IS NOT NULL)
    OR EXISTS (SELECT 1 FROM resync_state_ids told
      WHERE told.room_id = $1 AND told.event_id = prev.id AND told.snapshot_id IS NOT NULL)))`;

/** Any of the room's partial events, others each time. */
export async function somePartialEvents(c: Connection, roomId: RoomId, limit: number): Promise<readonly EventId[]> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM partial_state_events WHERE room_id = $1 ORDER BY random() LIMIT $2`,
    [roomId, limit],
  );
  return rows.map((row) => row.id);
}

export interface RepairableEvent {
  readonly eventId: EventId;
  /** Its partial prev_events and auth events, to be repaired before it. */
  readonly after: readonly EventId[];
}

/** Events arrive before their prev_events now and then, so that one pass is mostly but not always enough. */
function inRepairableOrder(events: readonly RepairableEvent[]): readonly RepairableEvent[] {
  const ordered = new Map<EventId, RepairableEvent>();
  let before = -1;
  while (ordered.size > before) {
    before = ordered.size;
    for (const event of events) {
      if (event.after.every((id) => ordered.has(id)) && !ordered.has(event.eventId)) {
        ordered.set(event.eventId, event);
      }
    }
  }
  return [...ordered.values()];
}

export async function countPartialEvents(c: Connection, roomId: RoomId): Promise<number> {
  const row = await queryRow<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM partial_state_events WHERE room_id = $1`,
    [roomId],
  );
  return row?.count ?? 0;
}

/** A partial event whose full state became known, with its states and its verdict by that. */
export interface SettledEvent {
  readonly eventId: EventId;
  readonly stateBefore: bigint;
  readonly stateAfter: bigint;
  /** The auth rule that refuses it, and why; null: accepted. */
  readonly rejection: string | null;
}

/** Moves the events' state pointers and verdicts; they are partial no more. */
export async function settlePartialEvents(tx: Connection, settled: readonly SettledEvent[]): Promise<void> {
  await execute(
    tx,
    `WITH given AS (
       SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[])
         AS given (event_id, state_before, state_after, rejection)),
     settled AS (DELETE FROM partial_state_events USING given WHERE partial_state_events.event_id = given.event_id)
     UPDATE events SET state_before = given.state_before, state_after = given.state_after, rejection = given.rejection
     FROM given WHERE events.event_id = given.event_id`,
    [
      settled.map(({ eventId }) => eventId),
      settled.map(({ stateBefore }) => stateBefore),
      settled.map(({ stateAfter }) => stateAfter),
      settled.map(({ rejection }) => rejection),
    ],
  );
}

/**
 * Gives up on the full state of the room's partial events, when it is left. They stay in the timeline without a state:
 * after a re-join, what they had must not pass for the full state.
 */
export async function abandonPartialEvents(tx: Connection, roomId: RoomId): Promise<number> {
  return execute(
    tx,
    `WITH abandoned AS (DELETE FROM partial_state_events WHERE room_id = $1 RETURNING event_id)
     UPDATE events SET state_before = NULL, state_after = NULL FROM abandoned
     WHERE events.event_id = abandoned.event_id`,
    [roomId],
  );
}

/**
 * Makes the room fully joined.
 *
 * @throws StorageConflict "foreign-key" while any of its events is marked partial: one came in meanwhile
 */
export async function deletePartialRoom(tx: Connection, roomId: RoomId): Promise<boolean> {
  await execute(tx, `DELETE FROM partial_state_rooms_servers WHERE room_id = $1`, [roomId]);
  return (await execute(tx, `DELETE FROM partial_state_rooms WHERE room_id = $1`, [roomId])) === 1;
}
