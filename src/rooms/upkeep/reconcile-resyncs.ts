import { listPartialRooms, partialRoom } from "../../storage/partial-state.ts";
import { loadResyncControl } from "../../storage/resync-control.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import { finishPurges } from "../join/purge-room.ts";
import { nextResyncStep } from "../resync/resync-next-step.ts";
import { wakeAbandonedResync } from "../resync/wake-abandoned-resync.ts";

/**
 * Sees to it that each partial room has its resync, unless it was cancelled: a join may have been stored while Temporal
 * was away, and a workflow may have been terminated by hand. Starting one that runs changes nothing. A cancelled one
 * has no workflow that would clear up when the last of our users leaves, so that it is done here. First, purges of
 * rooms that were not completed at once are.
 */
export async function reconcileResyncs(ctx: RoomsContext): Promise<{ readonly started: number }> {
  await finishPurges(ctx);
  let started = 0;
  for (const { roomId, joinEventId } of await listPartialRooms(ctx.database.pool)) {
    if (joinEventId === null) continue;
    // Read just before the start: of many rooms, one may be cancelled or joined anew while others are started, and an
    // old join's resync would take the place of the new one's.
    if ((await partialRoom(ctx.database.pool, roomId))?.joinEventId !== joinEventId) continue;
    const isCancelled = (await loadResyncControl(ctx.database, roomId))?.wish === "cancelled";
    if (!isCancelled) {
      await atStep(ctx, "start a missing resync", () => ctx.resyncs.start(roomId, joinEventId));
      started += 1;
    }
    if ((await localJoinedUsers(ctx.database.pool, roomId, ctx.serverName)).length > 0) continue;
    if (isCancelled) await nextResyncStep(ctx, { roomId, joinEventId });
    else await wakeAbandonedResync(ctx, roomId);
  }
  return { started };
}
