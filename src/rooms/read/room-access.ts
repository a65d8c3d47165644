import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import { isRoomForgotten } from "../../storage/forgotten-rooms.ts";
import { membershipOf } from "../../storage/memberships.ts";
import type { Member } from "../../storage/memberships.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";

/** The state that a user may see of a room, and up to where its timeline. */
export interface RoomAccess {
  readonly roomId: RoomId;
  readonly userId: UserId;
  /** The current state of the room, or for one who has left, the state when they did. */
  readonly snapshotId: bigint;
  /** The position of the event by which the user left; undefined for a joined user. */
  readonly leftAt: bigint | undefined;
}

/**
 * What a user may read of a room: joined users all of its present, users who have left what was before.
 *
 * @throws MatrixError 403 M_FORBIDDEN for anyone else, whether the room exists or not
 */
export async function roomAccess(ctx: RoomsContext, roomId: RoomId, userId: UserId): Promise<RoomAccess> {
  const [room, member] = await Promise.all([
    loadRoom(ctx.database.pool, roomId),
    membershipOf(ctx.database.pool, roomId, userId),
  ]);
  if (member?.membership === "join" && typeof room?.currentSnapshotId === "bigint") {
    return { roomId, userId, snapshotId: room.currentSnapshotId, leftAt: undefined };
  }
  const left = await departureOf(ctx, member, userId);
  if (left !== undefined && !(await isRoomForgotten(ctx.database.pool, roomId, userId))) {
    return { roomId, userId, ...left };
  }
  throw new MatrixError(403, "M_FORBIDDEN", `You are not in the room ${roomId}`);
}

/** Where a user left whom the room once had; a declined invitation is left too, but gives a sight of nothing. */
async function departureOf(
  ctx: RoomsContext,
  member: Member | undefined,
  userId: UserId,
): Promise<Pick<RoomAccess, "snapshotId" | "leftAt"> | undefined> {
  if (member?.membership !== "leave" && member?.membership !== "ban") {
    return undefined;
  }
  const { pool } = ctx.database;
  const left = await loadEvent(pool, member.eventId);
  if (left === undefined || left.stateBefore === null || left.stateAfter === null || left.streamId === null) {
    return undefined;
  }
  const id = await lookUpInSnapshot(pool, left.stateBefore, "m.room.member", userId);
  const before = id === undefined ? undefined : await loadEvent(pool, id);
  const wasJoined = before?.pdu.content["membership"] === "join";
  return wasJoined ? { snapshotId: left.stateAfter, leftAt: left.streamId } : undefined;
}
