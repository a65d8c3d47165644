import type { RoomsContext } from "../src/rooms/context.ts";
import { reconcileResyncs } from "../src/rooms/upkeep/reconcile-resyncs.ts";
import { acting } from "./acting.ts";

export function createReconcileActivities(ctx: RoomsContext) {
  return {
    reconcileResyncs: () => acting(ctx, "report started resyncs", () => reconcileResyncs(ctx)),
  };
}
