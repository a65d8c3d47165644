import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { membershipOf } from "../../storage/memberships.ts";
import type { RoomsContext } from "../context.ts";

/** @throws MatrixError 403 M_FORBIDDEN for a user of ours who is not joined in the room */
export async function checkJoined(ctx: RoomsContext, roomId: RoomId, userId: UserId): Promise<void> {
  const member = await membershipOf(ctx.database.pool, roomId, userId);
  if (member?.membership !== "join") {
    throw new MatrixError(403, "M_FORBIDDEN", `${userId} is not joined in room ${roomId}`);
  }
}
