import { purgeRoomOfUsers, type RoomPurged, type RoomToPurge } from "../rooms/join/purge-room.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";

/**
 * Makes all of our users leave the room, and deletes what we hold of it.
 *
 * @throws MatrixError 404 for a room that we hold nothing of
 */
export async function purgeKnownRoom(ctx: OperatorContext, request: RoomToPurge): Promise<RoomPurged> {
  await requireKnownRoom(ctx, request.roomId);
  return await purgeRoomOfUsers(ctx, request);
}
