import type { MissingState, ResyncProgress, ServerStanding } from "./contract.ts";

const PHASES: Readonly<Record<ResyncProgress["phase"], string>> = {
  fetching: "fetching the full state",
  authorising: "judging events anew by the full state",
  waiting: "waiting until a server can be asked again",
  finishing: "declaring the room fully joined",
};

/** The resync's standing as Markdown, for the Temporal UI. */
export function describeProgress(roomId: string, progress: ResyncProgress): string {
  const { phase, partialEvents, idsLeft, servers, missingStates = [] } = progress;
  const lines = [
    `**${roomId}**: ${PHASES[phase]}`,
    "",
    `- partial events left: ${partialEvents}`,
    `- state events still to fetch: ${idsLeft}`,
    ...missingStates.map(missingLine),
  ];
  if (servers.length === 0) return lines.join("\n");
  const rows = servers.map((server) => `| ${server.name} | ${standingOf(server)} | ${nextAttemptOf(server)} |`);
  return [...lines, "", "| server | standing | next attempt |", "| --- | --- | --- |", ...rows].join("\n");
}

function missingLine({ eventId, ofJoin, servers }: MissingState): string {
  const attempts = servers.map((server) => `${server.name} ${server.failures}× (${server.cause})`);
  const tried = attempts.length === 0 ? "" : `; asked in vain: ${attempts.slice(-5).join(", ")}`;
  return `- missing: the state at \`${eventId}\`${ofJoin ? ", on which our join builds" : ""}${tried}`;
}

function standingOf(server: ServerStanding): string {
  if (server.result !== "failed") return server.result;
  const detail = server.detail === undefined ? "" : `: ${server.detail.replaceAll("|", "\\|").slice(0, 200)}`;
  return `failed ${server.failures}× (${server.cause ?? "unknown"}${detail})`;
}

/** The last millisecond that a Date can name: beyond it, an error here would stop the whole workflow. */
const LAST_DATE_MS = 8.64e15;

function nextAttemptOf(server: ServerStanding): string {
  return server.nextAttempt === undefined ? "" : new Date(Math.min(server.nextAttempt, LAST_DATE_MS)).toISOString();
}
