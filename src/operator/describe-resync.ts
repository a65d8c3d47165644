import type { ResyncProgress, ServerStanding } from "../../workflows/contract.ts";
import type { ResyncReport, ResyncSummary, WishReport } from "./read-resyncs.ts";
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
  const wait = nextAttempt === undefined ? 0 : Math.max(0, Math.ceil((nextAttempt - now) / 1000));
  const next = wait > 0 ? `; next attempt in ${wait} s` : "";
  return `${name}: failed ${counted(failures, "time")} (${why})${next}`;
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
  const { workflow, wish, link } = report;
  const servers = workflow.state === "running" ? ((workflow.progress ?? workflow.lastKnown)?.servers ?? []) : [];
  const lines = [
    `${report.roomId}`,
    `  state     partial, since our join ${report.joinEventId ?? "(unknown)"} via ${report.joinedVia ?? "(unknown)"}`,
    `  events    ${counted(report.partialEvents, "event")} accepted on partial state`,
    `  resync    ${describeWorkflow(workflow, wish)}`,
    ...(wish ? [`  wish      ${describeWish(wish)}`] : []),
    `  servers   ${report.serversInRoom.length} in the room at the join`,
    ...servers.map((server) => `            ${describeServer(server, now)}`),
    ...(link === undefined ? [] : [`  temporal  ${link}`]),
  ];
  return `${lines.join("\n")}\n`;
}
