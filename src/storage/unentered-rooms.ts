import type { RoomId } from "../matrix/identifiers.ts";
import { execute, type Connection } from "./query.ts";

/**
 * Deletes the outliers of a room of which we know nothing else: we were never in it, no user of ours is invited, knocks
 * or joins, and nobody has wished it gone. Whoever calls holds the room's lock, which those have to take who store events
 * of an answer to a join.
 *
 * @returns how many there were
 */
export async function deleteOutliersOfUnenteredRoom(tx: Connection, roomId: RoomId): Promise<number> {
  return await execute(
    tx,
    `DELETE FROM events WHERE room_id = $1 AND outlier
       AND EXISTS (SELECT 1 FROM rooms WHERE room_id = $1 AND current_snapshot_id IS NULL)
       AND NOT EXISTS (SELECT 1 FROM joins_under_way WHERE room_id = $1)
       AND NOT EXISTS (SELECT 1 FROM local_membership_stream WHERE room_id = $1)
       AND NOT EXISTS (SELECT 1 FROM room_purges WHERE room_id = $1)`,
    [roomId],
  );
}
