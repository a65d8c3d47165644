import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import type { GraphEvent } from "../matrix/forward-extremities.ts";
import { EVENT_COLUMNS, storedEventOf, type StoredEvent } from "./events.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** Where a room's graph ends. */
interface RoomFront {
  readonly roomId: RoomId;
  /** In the order of the ids. */
  readonly extremities: readonly EventId[];
  /** The room's state is partial. */
  readonly partial: boolean;
}

export async function roomFronts(c: Connection, roomIds: readonly RoomId[]): Promise<readonly RoomFront[]> {
  return queryRows<RoomFront & { roomId: RoomId }>(
    c,
    `SELECT id AS "roomId",
       ARRAY(SELECT event_id FROM forward_extremities WHERE room_id = id ORDER BY event_id COLLATE "C") AS extremities,
       EXISTS (SELECT 1 FROM partial_state_rooms WHERE room_id = id) AS partial
     FROM unnest($1::text[]) AS room (id)`,
    [roomIds],
  );
}

/** Those of the events that we have, and which of them are known on partial state only. */
export async function loadEventsAndStanding(
  c: Connection,
  ids: readonly EventId[],
): Promise<{ readonly events: Map<EventId, StoredEvent>; readonly partial: Set<EventId> }> {
  const rows = await queryRows<Parameters<typeof storedEventOf>[0] & { readonly partial: boolean }>(
    c,
    `SELECT ${EVENT_COLUMNS}, EXISTS (SELECT 1 FROM partial_state_events p WHERE p.event_id = e.event_id) AS partial
     FROM events e WHERE e.event_id = ANY ($1::text[])`,
    [ids],
  );
  return {
    events: new Map(rows.map((row) => [row.event_id, storedEventOf(row)])),
    partial: new Set(rows.flatMap((row) => (row.partial ? [row.event_id] : []))),
  };
}

/** Those of the events that one of the same room's timeline names as a prev_event, whatever became of that one. */
export async function whichAreBuiltUpon(
  c: Connection,
  events: readonly { readonly eventId: EventId; readonly roomId: RoomId }[],
): Promise<Set<EventId>> {
  const rows = await queryRows<{ roomId: RoomId; prevEventIds: readonly EventId[] }>(
    c,
    // One look into the index for all of them.
    `SELECT room_id AS "roomId", prev_event_ids AS "prevEventIds" FROM events
     WHERE prev_event_ids && $1::text[] AND stream_id IS NOT NULL`,
    [events.map(({ eventId }) => eventId)],
  );
  const named = new Set(rows.flatMap(({ roomId, prevEventIds }) => prevEventIds.map((id) => `${roomId} ${id}`)));
  return new Set(events.flatMap(({ eventId, roomId }) => (named.has(`${roomId} ${eventId}`) ? [eventId] : [])));
}

/** Whether an accepted event of the timeline builds on this one, be it through refused ones. */
export async function hasAcceptedDescendant(c: Connection, roomId: RoomId, eventId: EventId): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `WITH RECURSIVE above AS (
         SELECT $2::text AS event_id, true AS refused
       UNION
         SELECT child.event_id, child.rejection IS NOT NULL OR child.soft_failed
         FROM above JOIN events child ON child.prev_event_ids @> ARRAY[above.event_id]
         WHERE above.refused AND child.room_id = $1 AND child.stream_id IS NOT NULL)
     SELECT EXISTS (SELECT 1 FROM above WHERE NOT refused) AS found`,
    [roomId, eventId],
  );
  return row?.found ?? false;
}

/** These prev_events, and what those of them that were refused build on: an event that names them supersedes all. */
export async function supersededBy(
  c: Connection,
  roomId: RoomId,
  prevEventIds: readonly EventId[],
): Promise<Set<EventId>> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `WITH RECURSIVE superseded AS (
         SELECT unnest($2::text[]) AS id
       UNION
         SELECT unnest(refused.prev_event_ids) FROM superseded JOIN events refused ON refused.event_id = superseded.id
         WHERE refused.room_id = $1 AND refused.stream_id IS NOT NULL
           AND (refused.rejection IS NOT NULL OR refused.soft_failed))
     SELECT id FROM superseded`,
    [roomId, prevEventIds],
  );
  return new Set(rows.map((row) => row.id));
}

/** An event with all that stands above it. */
interface Top {
  readonly eventId: EventId;
  readonly roomId: RoomId;
}

/**
 * Those of the ids that are the event itself, or events of the timeline that build on it. In room versions 1 and 2, whose
 * ids are chosen, an event can be made to build on itself.
 */
export async function timelineDescendantsAmong(
  c: Connection,
  ids: readonly EventId[],
  top: Top,
): Promise<Set<EventId>> {
  return await descendantsAmong(
    c,
    { ids, top },
    `SELECT child.event_id FROM above JOIN events child ON child.prev_event_ids @> ARRAY[above.id]
     WHERE child.room_id = $3 AND child.stream_id IS NOT NULL`,
  );
}

/**
 * Those of the ids that are the event itself, or events known on partial state only that build on it or are authorized
 * by it.
 */
export async function partialDescendantsAmong(c: Connection, ids: readonly EventId[], top: Top): Promise<Set<EventId>> {
  return await descendantsAmong(
    c,
    { ids, top },
    `SELECT child.event_id FROM partial_state_events JOIN events child USING (event_id)
     JOIN above ON above.id = ANY (child.prev_event_ids || child.auth_event_ids)
     WHERE partial_state_events.room_id = $3`,
  );
}

/** @param children selects the children of the events `above` in the room `$3` */
async function descendantsAmong(
  c: Connection,
  { ids, top }: { readonly ids: readonly EventId[]; readonly top: Top },
  children: string,
): Promise<Set<EventId>> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `WITH RECURSIVE above AS (SELECT $2::text AS id UNION ${children})
     SELECT id FROM above WHERE id = ANY ($1::text[])`,
    [ids, top.eventId, top.roomId],
  );
  return new Set(rows.map((row) => row.id));
}

/** An event of a timeline without its content: its place, its states, and what became of it. */
export interface Arrival extends GraphEvent {
  readonly streamId: bigint;
  readonly rejected: boolean;
  readonly softFailed: boolean;
  /** Known on partial state only: its states and its rejection may change yet. */
  readonly partial: boolean;
  /** Null where the state was abandoned. */
  readonly stateBefore: bigint | null;
  readonly stateAfter: bigint | null;
}

/** A room's events from a position on, in the order of their arrival. */
export async function arrivalsFrom(c: Connection, roomId: RoomId, position: bigint): Promise<readonly Arrival[]> {
  return queryRows<Arrival & { eventId: EventId }>(
    c,
    `SELECT event_id AS "eventId", prev_event_ids AS "prevEventIds", stream_id AS "streamId",
       rejection IS NOT NULL AS rejected, soft_failed AS "softFailed",
       state_before AS "stateBefore", state_after AS "stateAfter",
       EXISTS (SELECT 1 FROM partial_state_events partial WHERE partial.event_id = events.event_id) AS partial
     FROM events WHERE room_id = $1 AND stream_id >= $2 ORDER BY stream_id`,
    [roomId, position],
  );
}

export async function markSoftFailed(tx: Connection, eventIds: readonly EventId[]): Promise<void> {
  await execute(tx, `UPDATE events SET soft_failed = true WHERE event_id = ANY ($1::text[])`, [eventIds]);
}

/** Who has sent an event to a partial room since our join. */
export async function sendersSinceJoin(c: Connection, roomId: RoomId): Promise<readonly UserId[]> {
  const rows = await queryRows<{ sender: UserId }>(
    c,
    `SELECT DISTINCT sender FROM events
     WHERE room_id = $1 AND stream_id >= (
       SELECT stream_id FROM partial_state_rooms JOIN events joins ON joins.event_id = join_event_id
       WHERE partial_state_rooms.room_id = $1)`,
    [roomId],
  );
  return rows.map(({ sender }) => sender);
}
