import type { RoomsContext } from "../src/rooms/context.ts";
import { reconcileResyncs } from "../src/rooms/resync/reconcile-resyncs.ts";
import { withHeartbeat } from "./heartbeat.ts";

export function createReconcileActivities(ctx: RoomsContext) {
  return {
    reconcileResyncs: () => withHeartbeat(() => reconcileResyncs(ctx)),
  };
}
