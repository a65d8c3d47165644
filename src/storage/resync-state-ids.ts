import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** An answer to /state_ids that is being completed, kept so that a crash in the middle of it resumes there. */
export interface ResyncStateIds {
  readonly roomId: RoomId;
  /** The event that was asked at. */
  readonly eventId: EventId;
  /** The server that answered. */
  readonly serverName: ServerName;
  readonly stateEventIds: readonly EventId[];
  readonly authEventIds: readonly EventId[];
}

/** Which answer it is, without its ids: there may be 400,000. */
export interface ToldState extends Pick<ResyncStateIds, "roomId" | "eventId" | "serverName"> {
  /** How many ids it has, those that are of the state and of the auth chain twice. */
  readonly count: number;
}

// As JSON, which is read at once: of a list's own format the driver reads 100,000 ids character by character, while whoever
// else the process serves waits.
const COLUMNS = `room_id AS "roomId", event_id AS "eventId", server_name AS "serverName",
  to_json(state_event_ids) AS "stateEventIds", to_json(auth_event_ids) AS "authEventIds"`;

/** A statement's message is held three times over while it is made; of what is added to, PostgreSQL writes all anew. */
const SAVED_AT_ONCE = 100_000;

/**
 * Stores an answer; a later one at the same event takes its place. In a transaction, so that nobody sees the half of a
 * long one.
 */
export async function saveResyncStateIds(tx: Connection, answer: ResyncStateIds): Promise<void> {
  const { roomId, eventId, stateEventIds, authEventIds } = answer;
  const portionOf = (ids: readonly EventId[], start: number): readonly EventId[] =>
    ids.slice(start, start + SAVED_AT_ONCE);
  await execute(
    tx,
    `INSERT INTO resync_state_ids (room_id, event_id, server_name, state_event_ids, auth_event_ids)
     VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (room_id, event_id) DO UPDATE SET server_name = EXCLUDED.server_name, snapshot_id = NULL,
       state_event_ids = EXCLUDED.state_event_ids, auth_event_ids = EXCLUDED.auth_event_ids`,
    [roomId, eventId, answer.serverName, portionOf(stateEventIds, 0), portionOf(authEventIds, 0)],
  );
  for (let start = SAVED_AT_ONCE; start < stateEventIds.length; start += SAVED_AT_ONCE) {
    await execute(tx, `UPDATE resync_state_ids SET state_event_ids = state_event_ids || $3::text[] ${OF_EVENT}`, [
      roomId,
      eventId,
      portionOf(stateEventIds, start),
    ]);
  }
  for (let start = SAVED_AT_ONCE; start < authEventIds.length; start += SAVED_AT_ONCE) {
    await execute(tx, `UPDATE resync_state_ids SET auth_event_ids = auth_event_ids || $3::text[] ${OF_EVENT}`, [
      roomId,
      eventId,
      portionOf(authEventIds, start),
    ]);
  }
}

const OF_EVENT = "WHERE room_id = $1 AND event_id = $2";

export async function loadToldState(c: Connection, roomId: RoomId, eventId: EventId): Promise<ToldState | undefined> {
  return queryRow<{ roomId: RoomId; eventId: EventId; serverName: ServerName; count: number }>(
    c,
    `SELECT room_id AS "roomId", event_id AS "eventId", server_name AS "serverName",
       cardinality(state_event_ids) + cardinality(auth_event_ids) AS count
     FROM resync_state_ids WHERE room_id = $1 AND event_id = $2`,
    [roomId, eventId],
  );
}

/** The rows of a statement are held several times over while it runs. */
const IDS_AT_ONCE = 20_000;

/** Those of the answer's events that are not stored; what nobody remembers any more seems to be. */
export async function unstoredStateIds(
  c: Connection,
  { roomId, eventId, serverName, count }: ToldState,
): Promise<Set<EventId>> {
  const unstored = new Set<EventId>();
  for (let start = 1; start <= count; start += IDS_AT_ONCE) {
    const rows = await queryRows<{ id: EventId }>(
      c,
      `SELECT named.id FROM resync_state_ids told,
         unnest((told.state_event_ids || told.auth_event_ids)[$4::integer : $5::integer]) AS named (id)
       WHERE told.room_id = $1 AND told.event_id = $2 AND told.server_name = $3
         AND NOT EXISTS (SELECT 1 FROM events WHERE events.event_id = named.id)`,
      [roomId, eventId, serverName, start, start + IDS_AT_ONCE - 1],
    );
    for (const { id } of rows) unstored.add(id);
  }
  return unstored;
}

/** An answer of this server, if it is still there and every event that it names is stored. */
export async function loadStoredStateIds(c: Connection, told: ToldState): Promise<ResyncStateIds | undefined> {
  return queryRow<ResyncStateIds>(
    c,
    `SELECT ${COLUMNS} FROM resync_state_ids told
     WHERE room_id = $1 AND event_id = $2 AND server_name = $3 AND ${ALL_STORED}`,
    [told.roomId, told.eventId, told.serverName],
  );
}

const ALL_STORED = `NOT EXISTS (
  SELECT 1 FROM unnest(told.state_event_ids || told.auth_event_ids) AS named (id)
  WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.event_id = named.id))`;

export async function loadResyncStateIds(
  c: Connection,
  roomId: RoomId,
  eventId: EventId,
): Promise<ResyncStateIds | undefined> {
  return queryRow<ResyncStateIds>(c, `SELECT ${COLUMNS} FROM resync_state_ids WHERE room_id = $1 AND event_id = $2`, [
    roomId,
    eventId,
  ]);
}

/** Whether an answer is there, and every event that it names. None of its ids leaves the database. */
export async function areStateIdsStored(c: Connection, roomId: RoomId, eventId: EventId): Promise<boolean> {
  const row = await queryRow<{ stored: boolean }>(
    c,
    `SELECT ${ALL_STORED} AS stored FROM resync_state_ids told WHERE room_id = $1 AND event_id = $2`,
    [roomId, eventId],
  );
  return row?.stored ?? false;
}

/** Notes the snapshot that the answer came to. False if that server's answer is not there any more. */
export async function noteSnapshotOfStateIds(
  tx: Connection,
  { roomId, eventId, serverName }: Pick<ResyncStateIds, "roomId" | "eventId" | "serverName">,
  snapshotId: bigint,
): Promise<boolean> {
  const written = await execute(
    tx,
    `UPDATE resync_state_ids SET snapshot_id = $4 WHERE room_id = $1 AND event_id = $2 AND server_name = $3`,
    [roomId, eventId, serverName, snapshotId],
  );
  return written === 1;
}

/** The state after the event, where it was wholly fetched and found to be sound. */
export async function fetchedSnapshot(c: Connection, roomId: RoomId, eventId: EventId): Promise<bigint | undefined> {
  const row = await queryRow<{ id: bigint | null }>(
    c,
    `SELECT snapshot_id AS id FROM resync_state_ids WHERE room_id = $1 AND event_id = $2`,
    [roomId, eventId],
  );
  return row?.id ?? undefined;
}

/** The latest of those of the room. */
export async function fetchedSnapshots(c: Connection, roomId: RoomId): Promise<readonly bigint[]> {
  const rows = await queryRows<{ id: bigint }>(
    c,
    `SELECT DISTINCT snapshot_id AS id FROM resync_state_ids WHERE room_id = $1 AND snapshot_id IS NOT NULL
     ORDER BY id DESC LIMIT 10`,
    [roomId],
  );
  return rows.map((row) => row.id);
}

export async function deleteResyncStateIds(c: Connection, roomId: RoomId, eventId: EventId): Promise<void> {
  await execute(c, `DELETE FROM resync_state_ids WHERE room_id = $1 AND event_id = $2`, [roomId, eventId]);
}

/** All of the room's, when its resync has ended or it is left. */
export async function clearResyncStateIds(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(tx, `DELETE FROM resync_state_ids WHERE room_id = $1`, [roomId]);
}
