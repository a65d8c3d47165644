import type { RoomsContext } from "../src/rooms/context.ts";
import { reconcileResyncs } from "../src/rooms/reconcile-resyncs.ts";

export function createReconcileActivities(ctx: RoomsContext) {
  return {
    reconcileResyncs: () => reconcileResyncs(ctx),
  };
}
