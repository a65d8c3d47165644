import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomId } from "../matrix/identifiers.ts";
import { loadRoomPurge } from "../storage/room-purges.ts";
import { loadRoom } from "../storage/rooms.ts";
import type { OperatorContext } from "./context.ts";

/** @throws MatrixError 404 for a room that we hold nothing of, or only what is left of a purge */
export async function requireKnownRoom(ctx: OperatorContext, roomId: RoomId): Promise<void> {
  const { pool } = ctx.database;
  const purge = await loadRoomPurge(pool, roomId);
  const isPurged = purge !== undefined && purge.purgedAt !== null;
  if (isPurged || (await loadRoom(pool, roomId)) === undefined) {
    throw new MatrixError(404, "M_NOT_FOUND", `No such room here: ${roomId}`);
  }
}
