import type { RoomId } from "../../matrix/identifiers.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";

/**
 * Has a resync look again where the last of our users is out of the room: one that waits for its servers would notice
 * only when their time has come. Never fails, and is not to be waited for: Temporal may be away, and the reconciler does
 * the same later.
 */
export async function wakeAbandonedResync(ctx: RoomsContext, roomId: RoomId): Promise<void> {
  try {
    const { pool } = ctx.database;
    if ((await partialRoom(pool, roomId)) === undefined) return;
    if ((await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0) return;
    await atStep(ctx, "wake a resync", () => ctx.resyncs.wake(roomId));
  } catch (error) {
    ctx.logger.warn({ err: error, roomId }, "a resync could not be told yet that its room was left");
  }
}
