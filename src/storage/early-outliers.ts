import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { transaction, type Database } from "./database.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** So many are deleted by one transaction. */
const CHUNK = 500;

/**
 * Notes outliers that are stored, in the same transaction, before it is known whether the join succeeds that brought
 * them. Of a room that we know a state of nothing is noted.
 */
export async function noteEarlyOutliers(tx: Connection, roomId: RoomId, eventIds: readonly EventId[]): Promise<void> {
  await execute(
    tx,
    `INSERT INTO early_outliers (room_id, event_ids)
     SELECT $1, array_agg(id) FROM unnest($2::text[]) WITH ORDINALITY AS early (id, nth)
     WHERE EXISTS (SELECT 1 FROM rooms WHERE room_id = $1 AND current_snapshot_id IS NULL)
     GROUP BY nth / $3`,
    [roomId, eventIds, CHUNK],
  );
}

interface ChunkRow {
  readonly chunkId: bigint;
  readonly roomId: RoomId;
}

/** The rooms that were entered keep them: all of their notes go at once. */
export async function forgetEarlyOutliersOfEnteredRooms(c: Connection): Promise<void> {
  await execute(
    c,
    `DELETE FROM early_outliers USING rooms
     WHERE rooms.room_id = early_outliers.room_id AND current_snapshot_id IS NOT NULL`,
  );
}

/**
 * Deletes a chunk of what failed joins have left.
 *
 * @returns false if there was nothing to delete
 */
export async function deleteEarlyOutliers(database: Database): Promise<boolean> {
  return await transaction(database, deleteChunkOfEarlyOutliers);
}

/**
 * Deletes a chunk, with its note. A room that was entered keeps its events, one with a join under way its note too, and
 * what tells of the standing of a user of ours is kept in any case.
 *
 * @returns false if there was nothing to delete
 */
export async function deleteChunkOfEarlyOutliers(tx: Connection): Promise<boolean> {
  // Whoever begins a join of the room waits for this lock, and whoever has begun one before it is seen below.
  const chunk = await queryRow<ChunkRow>(
    tx,
    `SELECT chunk_id AS "chunkId", room_id AS "roomId" FROM early_outliers early
     WHERE NOT EXISTS (SELECT 1 FROM joins_under_way WHERE joins_under_way.room_id = early.room_id)
     ORDER BY chunk_id LIMIT 1 FOR UPDATE SKIP LOCKED`,
  );
  if (chunk === undefined) return false;
  // In one statement: the note goes only if there was no join when its events went.
  await execute(
    tx,
    `WITH failed AS (
       SELECT event_ids FROM early_outliers
       WHERE chunk_id = $1 AND NOT EXISTS (SELECT 1 FROM joins_under_way WHERE room_id = $2)),
     deleted AS (
       DELETE FROM events WHERE event_id IN (SELECT unnest(event_ids) FROM failed) AND room_id = $2 AND outlier
         AND EXISTS (SELECT 1 FROM rooms WHERE room_id = $2 AND current_snapshot_id IS NULL)
         AND event_id NOT IN (SELECT event_id FROM local_membership_stream WHERE room_id = $2))
     DELETE FROM early_outliers WHERE chunk_id = $1 AND EXISTS (SELECT 1 FROM failed)`,
    [chunk.chunkId, chunk.roomId],
  );
  return true;
}

/** Waits for whoever is deleting such events of the room just now. */
export async function untilNoEarlyOutlierIsDeleted(c: Connection, roomId: RoomId): Promise<void> {
  await queryRows(c, `SELECT 1 FROM early_outliers WHERE room_id = $1 FOR KEY SHARE`, [roomId]);
}
