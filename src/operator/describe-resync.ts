import type { FailedAttempt, MissingState, ResyncProgress, ServerStanding } from "../../workflows/contract.ts";
import type { DropReport, LackReport, ResyncReport, ResyncSummary, WishReport } from "./read-resyncs.ts";
import type { WorkflowStanding } from "./resync-workflows.ts";

/** `340 events`, `1 event`. */
function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function describeWish({ wish, server, by, at, why }: WishReport): string {
  const what = wish === "cancelled" ? "cancelled" : `prefer ${server}`;
  return `${what}, by ${by} at ${new Date(at).toISOString()}${why === "" ? "" : `: ${why}`}`;
}

function describeServer(server: ServerStanding, now: number): string {
  const { name, result, cause, detail, failures, nextAttempt } = server;
  if (result !== "failed") {
    return `${name}: ${result}`;
  }
  const why = [cause, detail].filter((part) => part !== undefined).join(": ");
  return `${name}: failed ${counted(failures, "time")} (${why})${describeNext(nextAttempt, now)}`;
}

function describeNext(nextAttempt: number | undefined, now: number): string {
  const wait = nextAttempt === undefined ? 0 : Math.max(0, Math.ceil((nextAttempt - now) / 1000));
  return wait > 0 ? `; next attempt in ${wait} s` : "";
}

/** A state that is missing, and who was asked for it in vain. */
function describeLack(lack: LackReport, missingStates: readonly MissingState[], now: number): readonly string[] {
  const { missing, neededBy, isOurJoin } = lack;
  const attempts = missingStates.find(({ eventId }) => eventId === missing)?.servers ?? [];
  const what = isOurJoin ? "our join" : neededBy;
  return [
    `  missing   the state at ${missing}, on which ${what} builds`,
    ...attempts.map((attempt) => `            ${describeAttempt(attempt, now)}`),
  ];
}

function describeAttempt({ name, cause, failures, nextAttempt }: FailedAttempt, now: number): string {
  return `${name}: asked in vain ${counted(failures, "time")} (${cause})${describeNext(nextAttempt, now)}`;
}

function droppableNote({ roomId, lacks }: { roomId: string; lacks: readonly LackReport[] }): readonly string[] {
  const droppable = lacks.every(({ isOurJoin }) => !isOurJoin) ? lacks[0] : undefined;
  if (droppable === undefined) return [];
  return [`            if nobody can give it: fastjoin drop '${roomId}' '${droppable.neededBy}'`];
}

function describeDrop({ eventId, by, at, why }: DropReport): string {
  return `${eventId}, by ${by} at ${new Date(at).toISOString()}${why === "" ? "" : `: ${why}`}`;
}

function describeProgress(progress: ResyncProgress): string {
  const { phase, partialEvents, idsLeft } = progress;
  return `${phase}; ${counted(partialEvents, "partial event")}, ${counted(idsLeft, "state event")} still to fetch`;
}

function describeWithoutWorker({ note = "", lastKnown }: WorkflowStanding & { readonly state: "running" }): string {
  const last = lastKnown
    ? `; last known: ${lastKnown.phase}, ${counted(lastKnown.partialEvents, "partial event")}`
    : "";
  return `running, but ${note}${last}`;
}

function describeWorkflow(workflow: WorkflowStanding, wish: WishReport | undefined): string {
  const restarter = wish?.wish === "cancelled" ? "only a retry" : "the reconciler or a retry";
  switch (workflow.state) {
    case "running":
      return workflow.progress ? describeProgress(workflow.progress) : describeWithoutWorker(workflow);
    case "closed":
      return `the workflow has ended (${workflow.status}); ${restarter} starts it again`;
    case "none":
      return `no workflow; ${restarter} starts it`;
    case "unknown":
      return workflow.note;
  }
}

/** One line of `fastjoin rooms`. */
export function describeSummary(summary: ResyncSummary): string {
  const wish = summary.wish ? ` [${describeWish(summary.wish)}]` : "";
  const via = summary.joinedVia ?? "unknown";
  return `${summary.roomId}  ${counted(summary.partialEvents, "partial event")}, joined via ${via}${wish}\n`;
}

/** `fastjoin show`: where the room's resync is, what it waits for, and what became of each server. */
export function describeResync(report: ResyncReport, now: number): string {
  if (report.state === "complete") {
    return `${report.roomId}\n  state     complete: nothing to resync\n`;
  }
  const { workflow, wish, link, lacks, drops } = report;
  const progress = workflow.state === "running" ? (workflow.progress ?? workflow.lastKnown) : undefined;
  const { servers = [], missingStates = [] } = progress ?? {};
  const lines = [
    `${report.roomId}`,
    `  state     partial, since our join ${report.joinEventId ?? "(unknown)"} via ${report.joinedVia ?? "(unknown)"}`,
    `  events    ${counted(report.partialEvents, "event")} accepted on partial state`,
    `  resync    ${describeWorkflow(workflow, wish)}`,
    ...(wish ? [`  wish      ${describeWish(wish)}`] : []),
    `  servers   ${report.serversInRoom.length} in the room at the join`,
    ...servers.map((server) => `            ${describeServer(server, now)}`),
    ...lacks.flatMap((lack) => describeLack(lack, missingStates, now)),
    ...droppableNote(report),
    ...drops.map((drop) => `  dropped   ${describeDrop(drop)}`),
    ...(link === undefined ? [] : [`  temporal  ${link}`]),
  ];
  return `${lines.join("\n")}\n`;
}
