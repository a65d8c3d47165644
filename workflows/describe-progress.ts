import type { ResyncProgress, ServerStanding } from "./contract.ts";

const PHASES: Readonly<Record<ResyncProgress["phase"], string>> = {
  fetching: "fetching the full state",
  authorising: "judging events anew by the full state",
  waiting: "waiting until a server can be asked again",
  finishing: "declaring the room fully joined",
};

/** The resync's standing as Markdown, for the Temporal UI. */
export function describeProgress(roomId: string, progress: ResyncProgress): string {
  const { phase, partialEvents, idsLeft, servers } = progress;
  const lines = [
    `**${roomId}**: ${PHASES[phase]}`,
    "",
    `- partial events left: ${partialEvents}`,
    `- state events still to fetch: ${idsLeft}`,
  ];
  if (servers.length === 0) return lines.join("\n");
  const rows = servers.map((server) => `| ${server.name} | ${standingOf(server)} | ${nextAttemptOf(server)} |`);
  return [...lines, "", "| server | standing | next attempt |", "| --- | --- | --- |", ...rows].join("\n");
}

function standingOf(server: ServerStanding): string {
  if (server.result !== "failed") return server.result;
  const detail = server.detail === undefined ? "" : `: ${server.detail.replaceAll("|", "\\|").slice(0, 200)}`;
  return `failed ${server.failures}× (${server.cause ?? "unknown"}${detail})`;
}

function nextAttemptOf(server: ServerStanding): string {
  return server.nextAttempt === undefined ? "" : new Date(server.nextAttempt).toISOString();
}
