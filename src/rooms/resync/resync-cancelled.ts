import { loadResyncControl, storeResyncControl } from "../../storage/resync-control.ts";
import type { RoomsContext } from "../context.ts";
import { atStep } from "../failpoints.ts";
import type { ResyncTarget } from "./resync-next-step.ts";

/**
 * A workflow that was cancelled in Temporal itself, past our own operator's tools, stays cancelled too: without this
 * the reconciler would start it again.
 */
export async function recordCancelled(ctx: RoomsContext, { roomId, joinEventId }: ResyncTarget): Promise<void> {
  const control = await loadResyncControl(ctx.database, roomId);
  if (control?.wish === "cancelled") return;
  const why = "the workflow was cancelled";
  const wish = { roomId, wish: "cancelled", by: "temporal", at: ctx.now(), why } as const;
  await atStep(ctx, "note that a resync was cancelled", () => storeResyncControl(ctx.database, wish, joinEventId));
}
