import { purgeRoomOfUsers, type RoomPurged, type RoomToPurge } from "../rooms/join/purge-room.ts";
import { countOwedOfRoom, isRoomOpenToUs, loadRoomPurge } from "../storage/room-purges.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";

/**
 * Makes all of our users leave the room, and deletes what we hold of it. As long as something is left of a purge, the
 * room may be purged again: the answer to the first request may have been lost.
 *
 * @throws MatrixError 404 for a room that we hold nothing of
 */
export async function purgeKnownRoom(ctx: OperatorContext, request: RoomToPurge): Promise<RoomPurged> {
  const { pool } = ctx.database;
  const { roomId } = request;
  const purgedAt = (await loadRoomPurge(pool, roomId))?.purgedAt ?? null;
  // A room of which we have been told anew since is purged anew.
  if (purgedAt !== null && !(await isRoomOpenToUs(pool, roomId)))
    return { left: [], notLeft: [], owed: await countOwedOfRoom(pool, roomId) };
  await requireKnownRoom(ctx, roomId);
  return await purgeRoomOfUsers(ctx, request);
}
