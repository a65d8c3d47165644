import { defineSearchAttributeKey, SearchAttributeType } from "@temporalio/common";
import { defineQuery, defineSignal } from "@temporalio/workflow";

/** What the outside may know of the workflows: names, inputs, signals, queries, search attributes. */

export const RESYNC_WORKFLOW = "resync";
export const RECONCILE_WORKFLOW = "reconcile";
export const RECONCILE_SCHEDULE = "fastjoin-reconcile";

export function resyncWorkflowId(serverName: string, roomId: string): string {
  return `resync:${serverName}:${roomId}`;
}

export function defaultTaskQueue(serverName: string): string {
  return `fastjoin-${serverName}`;
}

export type ResyncPhase = "fetching" | "authorising" | "waiting" | "finishing";

/** Why a server could not help, as far as its answer tells. */
export type ServerFault =
  | "not-seen-join"
  | "forbidden"
  | "unknown-event"
  | "unreachable"
  | "invalid-data"
  | "server-error";

/** What a server said last, as `progress` shows it. Times are milliseconds since the epoch. */
export interface ServerStanding {
  readonly name: string;
  readonly result: "untried" | "answered" | "failed";
  readonly cause?: ServerFault;
  readonly detail?: string;
  /** Since it last answered. */
  readonly failures: number;
  readonly nextAttempt?: number;
}

/** A server that could not give one missing state. */
export interface FailedAttempt {
  readonly name: string;
  readonly cause: ServerFault;
  readonly failures: number;
  readonly nextAttempt?: number;
}

/** A state that some partial event builds on, and that no server has given yet. */
export interface MissingState {
  /** The event at which the state is missing. */
  readonly eventId: string;
  /** Our join builds on it. */
  readonly ofJoin: boolean;
  /** Those asked for it in vain. */
  readonly servers: readonly FailedAttempt[];
}

export interface ResyncProgress {
  readonly phase: ResyncPhase;
  readonly partialEvents: number;
  /** State events that are known by id and still to be fetched. */
  readonly idsLeft: number;
  readonly servers: readonly ServerStanding[];
  /** What is waited for, at most {@link MOST_MISSING_SHOWN} of them. */
  readonly missingStates?: readonly MissingState[];
}

export const MOST_MISSING_SHOWN = 20;

/** Of a wait: the server could not be reached at all, whichever state it is asked for. */
export const EVERY_STATE = "";

/** When a server is to be asked again for a state. */
export interface StateWait {
  /** The event at which the state is missing, or {@link EVERY_STATE}. */
  readonly eventId: string;
  readonly name: string;
  readonly cause: ServerFault;
  readonly failures: number;
  readonly nextAttempt: number;
}

export interface ResyncInput {
  readonly roomId: string;
  readonly joinEventId: string;
  /** False where the search attributes could not be registered. */
  readonly searchAttributes?: boolean;
  /** Carried from run to run by continue-as-new; absent in the first. */
  readonly carried?: ResyncProgress & {
    readonly preferredServer?: string;
    readonly failuresInARow: number;
    readonly lastFailureAt: number;
    readonly waits?: readonly StateWait[];
    readonly failedInTurn?: readonly string[];
  };
}

/** A cancelled resync ends as cancelled and has no outcome. */
export type ResyncOutcome =
  | "completed"
  /** A later join of ours has a resync of its own. */
  | "superseded"
  /** Nobody of ours is in the room any more. */
  | "completed-by-leave";

export const progressQuery = defineQuery<ResyncProgress>("progress");
export const retrySignal = defineSignal("retry");
/** From a running activity: how many state events are still to be fetched. */
export const idsLeftSignal = defineSignal<[number]>("ids-left");
export const preferServerSignal = defineSignal<[string]>("prefer-server");

export const MATRIX_ROOM_ID = defineSearchAttributeKey("MatrixRoomId", SearchAttributeType.KEYWORD);
export const RESYNC_PHASE = defineSearchAttributeKey("ResyncPhase", SearchAttributeType.KEYWORD);
export const PARTIAL_EVENTS = defineSearchAttributeKey("PartialEvents", SearchAttributeType.INT);
