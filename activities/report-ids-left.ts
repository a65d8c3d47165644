import { Context } from "@temporalio/activity";
import { idsLeftSignal } from "../workflows/contract.ts";

/** Each report is an entry in the workflow's history. */
const INTERVAL_MS = 2_000;

/** Tells the activity's workflow from time to time how many state events are still to be fetched. */
export function createIdsLeftReporter(): (idsLeft: number) => void {
  const { client, info, log } = Context.current();
  const run = info.workflowExecution;
  if (run === undefined) throw new Error("the activity runs outside a workflow");
  const workflow = client.workflow.getHandle(run.workflowId, run.runId);
  let reportedAt = 0;
  let reported: number | undefined;
  return (idsLeft) => {
    const now = Date.now();
    if (idsLeft === reported || now - reportedAt < INTERVAL_MS) return;
    [reportedAt, reported] = [now, idsLeft];
    // A lost report costs a stale figure in the UI, no more.
    workflow.signal(idsLeftSignal, idsLeft).catch((error: unknown) => log.debug("a report was lost", { error }));
  };
}
