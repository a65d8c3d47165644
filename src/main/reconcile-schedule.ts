import { ScheduleAlreadyRunning, ScheduleOverlapPolicy } from "@temporalio/client";
import { RECONCILE_SCHEDULE, RECONCILE_WORKFLOW } from "../../workflows/contract.ts";
import type { ServerName } from "../matrix/identifiers.ts";
import type { TemporalLink } from "./temporal-connection.ts";

const EVERY = "30s";

async function create(link: TemporalLink, scheduleId: string, serverName: ServerName): Promise<boolean> {
  try {
    await link.client.schedule.create({
      scheduleId,
      spec: { intervals: [{ every: EVERY }] },
      policies: { overlap: ScheduleOverlapPolicy.SKIP, catchupWindow: "1m" },
      action: {
        type: "startWorkflow",
        workflowType: RECONCILE_WORKFLOW,
        workflowId: `${RECONCILE_WORKFLOW}:${serverName}`,
        taskQueue: link.taskQueue,
        args: [],
      },
    });
    return true;
  } catch (error) {
    if (error instanceof ScheduleAlreadyRunning) {
      return false;
    }
    throw error;
  }
}

async function isOurs(link: TemporalLink, scheduleId: string): Promise<boolean> {
  const { action } = await link.client.schedule.getHandle(scheduleId).describe();
  return action.type === "startWorkflow" && action.taskQueue === link.taskQueue;
}

/**
 * Sees to it that the schedule that reconciles partial rooms with running resyncs is there. Where another sidecar
 * shares the namespace and has the schedule's name already, ours bears the server's name as well.
 */
export async function ensureReconcileSchedule(link: TemporalLink, serverName: ServerName): Promise<void> {
  await link.within(async () => {
    const taken = !(await create(link, RECONCILE_SCHEDULE, serverName));
    if (taken && !(await isOurs(link, RECONCILE_SCHEDULE))) {
      await create(link, `${RECONCILE_SCHEDULE}:${serverName}`, serverName);
    }
  });
}
