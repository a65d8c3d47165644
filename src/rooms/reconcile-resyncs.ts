import { listPartialRooms } from "../storage/partial-state.ts";
import { listResyncControls } from "../storage/resync-control.ts";
import { localJoinedUsers } from "../storage/memberships.ts";
import type { RoomsContext } from "./context.ts";
import { nextResyncStep } from "./resync-next-step.ts";

/**
 * Sees to it that each partial room has its resync, unless it was cancelled: a join may have been stored while Temporal
 * was away, and a workflow may have been terminated by hand. Starting one that runs changes nothing. A cancelled one
 * has no workflow that would clear up when the last of our users leaves, so that it is done here.
 */
export async function reconcileResyncs(ctx: RoomsContext): Promise<{ readonly started: number }> {
  const cancelled = new Set(
    (await listResyncControls(ctx.database)).filter((one) => one.wish === "cancelled").map((one) => one.roomId),
  );
  let started = 0;
  for (const { roomId, joinEventId } of await listPartialRooms(ctx.database.pool)) {
    if (joinEventId === null) continue;
    if (!cancelled.has(roomId)) {
      await ctx.resyncs.start(roomId, joinEventId);
      started += 1;
    } else if ((await localJoinedUsers(ctx.database.pool, roomId, ctx.serverName)).length === 0) {
      await nextResyncStep(ctx, { roomId, joinEventId });
    }
  }
  return { started };
}
