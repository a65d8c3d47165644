import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { insertForgottenRoom } from "../../storage/forgotten-rooms.ts";
import { currentStreamPosition, localMembershipsAt } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";

/**
 * Has a user who has left a room see it no more: neither its history nor, in a first sync, that it was left. Devices
 * that have not asked since are told the leave all the same. A room that the user was never in is forgotten already.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
 * @throws MatrixError 400 M_UNKNOWN where the user has not left the room
 */
export async function forgetRoom(
  ctx: RoomsContext,
  { userId, roomId }: { readonly userId: UserId; readonly roomId: RoomId },
): Promise<void> {
  const { pool } = ctx.database;
  const memberships = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const latest = memberships.find((one) => one.roomId === roomId);
  if (latest === undefined) return;
  const { membership, streamId } = latest;
  if (membership !== "leave" && membership !== "ban") {
    throw new MatrixError(400, "M_UNKNOWN", `${userId} has not left room ${roomId}`);
  }
  await atStep(ctx, "forget a room", () => insertForgottenRoom(pool, { userId, roomId, streamId }));
}
