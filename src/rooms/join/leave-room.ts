import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { currentStreamPosition, localMembershipsAt } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";
import { wakeAbandonedResync } from "../resync/wake-abandoned-resync.ts";
import { leaveFromOutside } from "./leave-from-outside.ts";
import { ownJoinEnded } from "./own-join-ended.ts";

export interface RoomToLeave {
  readonly userId: UserId;
  readonly roomId: RoomId;
  readonly reason?: string;
}

/**
 * Takes one of our users out of a room, declines an invitation or takes a knock back. Never waits for a full state: a
 * leave is allowed by the user's own membership, which we know. Whoever is joined needs no other server for it
 * (docs/decisions/014-leaving-without-send-leave.md). Whoever has left already is answered the same, as the answer to the
 * first request may have been lost.
 *
 * @throws MatrixError `M_FORBIDDEN` for a banned user, `M_NOT_FOUND` where the user has nothing to leave
 */
export async function leaveRoom(ctx: RoomsContext, request: RoomToLeave): Promise<void> {
  const { userId, roomId } = request;
  const { pool } = ctx.database;
  const content = { membership: "leave", ...(request.reason === undefined ? {} : { reason: request.reason }) };
  const standsInRoom = async (): Promise<boolean> => {
    const current = await membershipOf(pool, roomId, userId);
    return current !== undefined && current.membership !== "leave" && current.membership !== "ban";
  };
  if ((await standsInRoom()) || ((await ownJoinEnded(ctx, roomId, userId)) && (await standsInRoom()))) {
    await createEvent(ctx, { roomId, sender: userId, type: "m.room.member", stateKey: userId, content });
    void wakeAbandonedResync(ctx, roomId);
    return;
  }
  const memberships = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  const latest = memberships.find((one) => one.roomId === roomId);
  switch (latest?.membership) {
    case "leave":
      return;
    case "invite":
    case "knock":
      return await leaveFromOutside(ctx, { userId, roomId, content }, latest.eventId);
    case "ban":
      throw new MatrixError(403, "M_FORBIDDEN", `${userId} is banned from room ${roomId}`);
    default:
      throw new MatrixError(404, "M_NOT_FOUND", `${userId} is not in room ${roomId}`);
  }
}
