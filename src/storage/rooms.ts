import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { rulesOf, type RoomVersion, type RoomVersionRules } from "../matrix/room-versions.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

export interface RoomRow {
  readonly roomId: RoomId;
  readonly roomVersion: RoomVersion;
  /** The room's current state; null until a join of ours is stored. */
  readonly currentSnapshotId: bigint | null;
  /**
   * While it is partial: the states behind its forward extremities to which the current state lacks nothing but unknown
   * members of other servers, as far as that has been compared.
   */
  readonly resolvedOf: string | null;
}

const ROOM_COLUMNS = `room_id AS "roomId", room_version AS "roomVersion", current_snapshot_id AS "currentSnapshotId",
  resolved_of AS "resolvedOf"`;

/**
 * Locks the room's row until the transaction ends: whoever changes the room's extremities or current state holds it.
 * Rows that only refer to the room can still be written meanwhile.
 */
export async function lockRoom(tx: Connection, roomId: RoomId): Promise<RoomRow | undefined> {
  return queryRow<RoomRow>(tx, `SELECT ${ROOM_COLUMNS} FROM rooms WHERE room_id = $1 FOR NO KEY UPDATE`, [roomId]);
}

/** The same for those of several rooms that nobody else has locked; the others are not waited for. */
export async function lockFreeRooms(tx: Connection, roomIds: readonly RoomId[]): Promise<readonly RoomRow[]> {
  return queryRows<RoomRow & { roomId: RoomId }>(
    tx,
    `SELECT ${ROOM_COLUMNS} FROM rooms WHERE room_id = ANY ($1::text[]) FOR NO KEY UPDATE SKIP LOCKED`,
    [roomIds],
  );
}

/** Keeps the room from being purged until the transaction ends, and waits for nobody but who does that. */
export async function holdRoom(tx: Connection, roomId: RoomId): Promise<void> {
  await queryRow(tx, `SELECT 1 FROM rooms WHERE room_id = $1 FOR KEY SHARE`, [roomId]);
}

export async function loadRoom(c: Connection, roomId: RoomId): Promise<RoomRow | undefined> {
  return queryRow<RoomRow>(c, `SELECT ${ROOM_COLUMNS} FROM rooms WHERE room_id = $1`, [roomId]);
}

/** A room and, as of the same moment, whether its state is partial. */
export async function loadRoomStanding(
  c: Connection,
  roomId: RoomId,
): Promise<(RoomRow & { readonly partial: boolean }) | undefined> {
  return queryRow<RoomRow & { readonly partial: boolean }>(
    c,
    `SELECT ${ROOM_COLUMNS}, EXISTS (SELECT 1 FROM partial_state_rooms p WHERE p.room_id = rooms.room_id) AS partial
     FROM rooms WHERE room_id = $1`,
    [roomId],
  );
}

/** Notes the room, without any state; leaves a room alone that is already known. True if it is new. */
export async function insertRoom(
  tx: Connection,
  room: { readonly roomId: RoomId; readonly roomVersion: RoomVersion },
): Promise<boolean> {
  const written = await execute(
    tx,
    `INSERT INTO rooms (room_id, room_version) VALUES ($1, $2) ON CONFLICT (room_id) DO NOTHING`,
    [room.roomId, room.roomVersion],
  );
  return written === 1;
}

/**
 * The same for who knows the version better than who noted it last: as long as we have no state of the room, all that
 * stands there may be what some server's invitation claimed.
 */
export async function insertOrCorrectRoom(
  tx: Connection,
  room: { readonly roomId: RoomId; readonly roomVersion: RoomVersion },
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO rooms (room_id, room_version) VALUES ($1, $2)
     ON CONFLICT (room_id) DO UPDATE SET room_version = EXCLUDED.room_version WHERE rooms.current_snapshot_id IS NULL`,
    [room.roomId, room.roomVersion],
  );
}

/** The rules of the room's version; undefined for a room that we don't know. */
export async function roomRules(c: Connection, roomId: RoomId): Promise<RoomVersionRules | undefined> {
  const row = await queryRow<{ version: string }>(c, `SELECT room_version AS version FROM rooms WHERE room_id = $1`, [
    roomId,
  ]);
  return row && rulesOf(row.version);
}

/** In the order of the ids. */
export async function forwardExtremities(c: Connection, roomId: RoomId): Promise<readonly EventId[]> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM forward_extremities WHERE room_id = $1 ORDER BY event_id COLLATE "C"`,
    [roomId],
  );
  return rows.map((row) => row.id);
}

export async function setForwardExtremities(tx: Connection, roomId: RoomId, ids: readonly EventId[]): Promise<void> {
  await setExtremitiesOfRooms(tx, new Map([[roomId, ids]]));
}

/** The same for several rooms; none of them without extremities. */
export async function setExtremitiesOfRooms(
  tx: Connection,
  extremities: ReadonlyMap<RoomId, readonly EventId[]>,
): Promise<void> {
  const rows = [...extremities].flatMap(([roomId, ids]) => ids.map((id) => [roomId, id] as const));
  await execute(
    tx,
    `WITH superseded AS (
       DELETE FROM forward_extremities WHERE room_id = ANY ($1::text[]) AND event_id <> ALL ($3::text[]))
     INSERT INTO forward_extremities (room_id, event_id) SELECT * FROM unnest($2::text[], $3::text[])
     ON CONFLICT DO NOTHING`,
    [[...extremities.keys()], rows.map(([roomId]) => roomId), rows.map(([, id]) => id)],
  );
}

export async function setCurrentSnapshot(tx: Connection, roomId: RoomId, snapshotId: bigint | null): Promise<void> {
  await execute(tx, `UPDATE rooms SET current_snapshot_id = $2, resolved_of = NULL WHERE room_id = $1`, [
    roomId,
    snapshotId,
  ]);
}

/** Of the current state that the room has by now. */
export async function setResolvedOf(tx: Connection, roomId: RoomId, resolvedOf: string): Promise<void> {
  await execute(tx, `UPDATE rooms SET resolved_of = $2 WHERE room_id = $1`, [roomId, resolvedOf]);
}
