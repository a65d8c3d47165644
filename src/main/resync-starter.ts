import { WorkflowExecutionAlreadyStartedError, WorkflowNotFoundError, type WorkflowHandle } from "@temporalio/client";
import { TypedSearchAttributes } from "@temporalio/common";
import {
  MATRIX_ROOM_ID,
  RESYNC_WORKFLOW,
  resyncWorkflowId,
  retrySignal,
  type ResyncInput,
} from "../../workflows/contract.ts";
import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import type { ResyncStarter } from "../rooms/context.ts";
import type { TemporalLink } from "./temporal-connection.ts";

interface ResyncOfJoin {
  readonly roomId: RoomId;
  readonly joinEventId: EventId;
}

/** Starts and cancels the workflow `resync`; each call ends within seconds, also while Temporal is away. */
export function createResyncStarter(link: TemporalLink, serverName: ServerName): ResyncStarter {
  const workflows = link.client.workflow;

  async function launch({ roomId, joinEventId }: ResyncOfJoin, replace: boolean): Promise<void> {
    const searchAttributes = await link.searchAttributes();
    const input: ResyncInput = { roomId, joinEventId, searchAttributes };
    await workflows.start(RESYNC_WORKFLOW, {
      workflowId: resyncWorkflowId(serverName, roomId),
      taskQueue: link.taskQueue,
      args: [input],
      // What a killed worker was at is given to another after this; twice as long is Temporal's default.
      workflowTaskTimeout: "5s",
      // Continue-as-new carries the memo, so that any run tells which join it works for.
      memo: { roomId, joinEventId },
      staticSummary: `Resync of ${roomId}`,
      workflowIdConflictPolicy: replace ? "TERMINATE_EXISTING" : "FAIL",
      ...(searchAttributes && {
        typedSearchAttributes: new TypedSearchAttributes([{ key: MATRIX_ROOM_ID, value: roomId }]),
      }),
    });
  }

  async function runsForJoin({ roomId, joinEventId }: ResyncOfJoin): Promise<boolean> {
    const { memo, status } = await handleOf(roomId).describe();
    return status.name === "RUNNING" && memo?.["joinEventId"] === joinEventId;
  }

  async function start(resync: ResyncOfJoin, replace: boolean): Promise<void> {
    try {
      await launch(resync, replace);
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) {
        throw error;
      }
      if (!(await runsForJoin(resync))) {
        await launch(resync, true);
      }
    }
  }

  const handleOf = (roomId: RoomId): WorkflowHandle => workflows.getHandle(resyncWorkflowId(serverName, roomId));

  async function unlessNotRunning(tell: () => Promise<unknown>): Promise<void> {
    try {
      await link.within(tell);
    } catch (error) {
      if (!(error instanceof WorkflowNotFoundError)) {
        throw error;
      }
    }
  }

  return {
    start: (roomId, joinEventId, { replace } = { replace: false }) =>
      link.within(() => start({ roomId, joinEventId }, replace)),
    wake: (roomId) => unlessNotRunning(() => handleOf(roomId).signal(retrySignal)),
    cancel: (roomId) => unlessNotRunning(() => handleOf(roomId).cancel()),
  };
}
