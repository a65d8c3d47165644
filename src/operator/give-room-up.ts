import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { leaveRoom } from "../rooms/join/leave-room.ts";
import { localJoinedUsers } from "../storage/memberships.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";

/**
 * Makes all of our users leave the room; its resync ends with the last of them.
 *
 * @throws MatrixError 404 for a room that we hold nothing of
 */
export async function giveRoomUp(ctx: OperatorContext, roomId: RoomId, reason: string): Promise<readonly UserId[]> {
  await requireKnownRoom(ctx, roomId);
  const users = await localJoinedUsers(ctx.database.pool, roomId, ctx.serverName);
  for (const userId of users) {
    await leaveRoom(ctx, { userId, roomId, ...(reason !== "" && { reason }) });
  }
  return users;
}
