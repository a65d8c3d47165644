import { isGrpcServiceError, WorkflowNotFoundError, type Client, type WorkflowHandle } from "@temporalio/client";
import { z } from "zod";
import {
  preferServerSignal,
  progressQuery,
  resyncWorkflowId,
  retrySignal,
  type MissingState,
  type ResyncProgress,
  type ServerStanding,
} from "../../workflows/contract.ts";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";

/** How to reach the workflows of this sidecar. */
export interface WorkflowAccess {
  readonly client: Client;
  readonly namespace: string;
  readonly serverName: ServerName;
  /** Temporal's web UI, without a slash at its end. */
  readonly uiUrl: string | undefined;
  /** Runs calls with a deadline. */
  within<T>(work: () => Promise<T>): Promise<T>;
}

const faultSchema = z.enum([
  "not-seen-join",
  "forbidden",
  "unknown-event",
  "unreachable",
  "invalid-data",
  "server-error",
]);

const lastKnownSchema = z.object({
  phase: z.enum(["fetching", "authorising", "waiting", "finishing"]),
  partialEvents: z.number(),
  servers: z
    .array(
      z.object({
        name: z.string(),
        result: z.enum(["untried", "answered", "failed"]),
        cause: faultSchema.exactOptional(),
        detail: z.string().exactOptional(),
        failures: z.number(),
        nextAttempt: z.number().exactOptional(),
      }) satisfies z.ZodType<ServerStanding>,
    )
    .exactOptional(),
  missingStates: z
    .array(
      z.object({
        eventId: z.string(),
        ofJoin: z.boolean(),
        servers: z.array(
          z.object({
            name: z.string(),
            cause: faultSchema,
            failures: z.number(),
            nextAttempt: z.number().exactOptional(),
          }),
        ),
      }) satisfies z.ZodType<MissingState>,
    )
    .exactOptional(),
});

/** What a running resync keeps in its memo. */
export type LastKnown = z.infer<typeof lastKnownSchema>;

/** What Temporal knows of a room's resync. */
export type WorkflowStanding =
  | {
      readonly state: "running";
      readonly runId: string;
      readonly progress?: ResyncProgress;
      /** Why there is no progress, in words. */
      readonly note?: string;
      /** Where there is no progress: what the workflow last told Temporal, which keeps it. */
      readonly lastKnown?: LastKnown;
    }
  | { readonly state: "closed"; readonly runId: string; readonly status: string; readonly closedAt?: number }
  | { readonly state: "none" }
  | { readonly state: "unknown"; readonly note: string };

export interface ResyncWorkflows {
  standing(roomId: RoomId): Promise<WorkflowStanding>;
  /** False if no resync of the room runs, or only one that is being cancelled. */
  signalRetry(roomId: RoomId): Promise<boolean>;
  /** False if no resync of the room runs. */
  signalPreferServer(roomId: RoomId, server: ServerName): Promise<boolean>;
  /** The workflow's page in Temporal's web UI. */
  link(roomId: RoomId): string | undefined;
}

function inWords(error: unknown): string {
  return isGrpcServiceError(error)
    ? error.details || error.message
    : error instanceof Error
      ? error.message
      : String(error);
}

async function runningStanding(
  handle: WorkflowHandle,
  access: WorkflowAccess,
  { runId, memo }: { readonly runId: string; readonly memo: unknown },
): Promise<WorkflowStanding> {
  try {
    return { state: "running", runId, progress: await access.within(() => handle.query(progressQuery)) };
  } catch (error) {
    const note = `no worker tells its progress: ${inWords(error)}`;
    // Nothing yet, if no worker has ever seen the workflow.
    const lastKnown = lastKnownSchema.safeParse(memo).data;
    return { state: "running", runId, note, ...(lastKnown && { lastKnown }) };
  }
}

async function standingOf(handle: WorkflowHandle, access: WorkflowAccess): Promise<WorkflowStanding> {
  try {
    const { runId, status, closeTime, memo } = await access.within(() => handle.describe());
    if (status.name === "RUNNING") {
      return await runningStanding(handle, access, { runId, memo });
    }
    const name = status.name.toLowerCase();
    return { state: "closed", runId, status: name, ...(closeTime && { closedAt: closeTime.getTime() }) };
  } catch (error) {
    return error instanceof WorkflowNotFoundError
      ? { state: "none" }
      : { state: "unknown", note: `Temporal does not answer: ${inWords(error)}` };
  }
}

async function isBeingCancelled(handle: WorkflowHandle, access: WorkflowAccess): Promise<boolean> {
  try {
    const { raw } = await access.within(() => handle.describe());
    return raw.workflowExtendedInfo?.cancelRequested === true;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) {
      return false;
    }
    throw error;
  }
}

async function unlessNotRunning(work: Promise<void>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) {
      return false;
    }
    throw error;
  }
}

/** The operator's access to the workflows `resync`. */
export function createResyncWorkflows(access: WorkflowAccess): ResyncWorkflows {
  const handleOf = (roomId: RoomId): WorkflowHandle =>
    access.client.workflow.getHandle(resyncWorkflowId(access.serverName, roomId));
  return {
    standing: (roomId) => standingOf(handleOf(roomId), access),
    signalRetry: async (roomId) =>
      !(await isBeingCancelled(handleOf(roomId), access)) &&
      unlessNotRunning(access.within(() => handleOf(roomId).signal(retrySignal))),
    signalPreferServer: (roomId, server) =>
      unlessNotRunning(access.within(() => handleOf(roomId).signal(preferServerSignal, server))),
    link: (roomId) =>
      access.uiUrl === undefined
        ? undefined
        : `${access.uiUrl}/namespaces/${encodeURIComponent(access.namespace)}/workflows/` +
          encodeURIComponent(resyncWorkflowId(access.serverName, roomId)),
  };
}
