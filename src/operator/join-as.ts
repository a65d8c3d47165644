import { MatrixError } from "../federation-api/matrix-error.ts";
import { isRoomAlias, serverNameOf, type EventId, type RoomAlias, type RoomId } from "../matrix/identifiers.ts";
import type { ServerName, UserId } from "../matrix/identifiers.ts";
import { joinRoom } from "../rooms/join/join-room.ts";
import { resolveAlias } from "../rooms/accounts/room-directory.ts";
import type { OperatorContext } from "./context.ts";

export interface JoinAs {
  readonly userId: UserId;
  readonly room: RoomId | RoomAlias;
  /** Servers to join through, best first; those that the alias names come after them. */
  readonly via: readonly ServerName[];
}

/** Joins a room as one of our users. */
export async function joinAs(
  ctx: OperatorContext,
  { userId, room, via }: JoinAs,
): Promise<{ readonly roomId: RoomId; readonly eventId: EventId; readonly partial: boolean }> {
  if (serverNameOf(userId) !== ctx.serverName) {
    throw new MatrixError(400, "M_INVALID_PARAM", `${userId} is not a user of ${ctx.serverName}`);
  }
  const target = isRoomAlias(room) ? await resolveAlias(ctx, room) : { roomId: room, servers: [] };
  const servers = [...new Set([...via, ...target.servers])];
  return joinRoom(ctx, { userId, roomId: target.roomId, via: servers });
}
