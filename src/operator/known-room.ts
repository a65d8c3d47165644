import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomId } from "../matrix/identifiers.ts";
import { loadRoom } from "../storage/rooms.ts";
import type { OperatorContext } from "./context.ts";

/** @throws MatrixError 404 for a room that we hold nothing of */
export async function requireKnownRoom(ctx: OperatorContext, roomId: RoomId): Promise<void> {
  if ((await loadRoom(ctx.database.pool, roomId)) === undefined) {
    throw new MatrixError(404, "M_NOT_FOUND", `No such room here: ${roomId}`);
  }
}
