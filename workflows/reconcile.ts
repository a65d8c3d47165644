import { proxyActivities } from "@temporalio/workflow";
import type { Activities } from "../activities/index.ts";

const { reconcileResyncs } = proxyActivities<Activities>({
  startToCloseTimeout: "5m",
  heartbeatTimeout: "5s",
  // The schedule comes again soon.
  retry: { maximumAttempts: 3 },
});

/** Started by the schedule `fastjoin-reconcile`: sees to it that each partial room has its resync. */
export async function reconcile(): Promise<{ readonly started: number }> {
  return await reconcileResyncs();
}
