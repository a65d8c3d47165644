import type { ResyncPhase, ResyncProgress, ServerFault, ServerStanding } from "./contract.ts";

/**
 * The state machine behind the workflow `resync`, apart from it: pure, without a clock, so that it can be tested and
 * carried whole from run to run. All times are milliseconds since the epoch.
 */
export interface ResyncState extends ResyncProgress {
  readonly preferredServer?: string;
  /** Failures since a server last helped: most of them say the same, so the next one is asked after a pause. */
  readonly failuresInARow: number;
  readonly lastFailureAt: number;
}

export type ResyncEvent =
  | { readonly type: "phase"; readonly phase: ResyncPhase }
  | { readonly type: "partial-events"; readonly count: number }
  | { readonly type: "ids-left"; readonly count: number }
  | { readonly type: "servers-listed"; readonly names: readonly string[] }
  | { readonly type: "server-answered"; readonly name: string }
  | {
      readonly type: "server-failed";
      readonly name: string;
      readonly cause: ServerFault;
      readonly detail: string;
      readonly at: number;
      /** What the server asked for. */
      readonly retryAfterMs?: number;
      /** Between 0 and 1: spreads the attempts of many rooms. */
      readonly jitter: number;
    }
  | { readonly type: "server-preferred"; readonly name: string }
  | { readonly type: "retry-wished" };

export function initialState(carried?: ResyncState): ResyncState {
  return (
    carried ?? { phase: "fetching", partialEvents: 0, idsLeft: 0, servers: [], failuresInARow: 0, lastFailureAt: 0 }
  );
}

export function reduce(state: ResyncState, event: ResyncEvent): ResyncState {
  switch (event.type) {
    case "phase":
      return { ...state, phase: event.phase };
    case "partial-events":
      return { ...state, partialEvents: event.count };
    case "ids-left":
      return { ...state, idsLeft: event.count };
    case "servers-listed":
      return { ...state, servers: withListed(state.servers, event.names) };
    case "server-answered":
      return {
        ...state,
        failuresInARow: 0,
        servers: replaced(state.servers, { name: event.name, result: "answered", failures: 0 }),
      };
    case "server-failed":
      return {
        ...state,
        failuresInARow: state.failuresInARow + 1,
        lastFailureAt: event.at,
        servers: replaced(state.servers, failed(state.servers, event)),
      };
    case "server-preferred":
      return {
        ...withoutWaits(state),
        preferredServer: event.name,
        servers: withListed(withoutWaits(state).servers, [event.name]),
      };
    case "retry-wished":
      return withoutWaits(state);
  }
}

/** Carried from run to run: of a room on thousands of servers, these are enough to go round. */
const MOST_SERVERS = 500;

function withListed(servers: readonly ServerStanding[], names: readonly string[]): readonly ServerStanding[] {
  const known = new Set(servers.map((server) => server.name));
  const added = names.filter((name) => !known.has(name)).slice(0, Math.max(0, MOST_SERVERS - servers.length));
  return [...servers, ...added.map((name): ServerStanding => ({ name, result: "untried", failures: 0 }))];
}

function replaced(servers: readonly ServerStanding[], standing: ServerStanding): readonly ServerStanding[] {
  return servers.map((server) => (server.name === standing.name ? standing : server));
}

function withoutWaits(state: ResyncState): ResyncState {
  return {
    ...state,
    failuresInARow: 0,
    servers: state.servers.map(({ nextAttempt: _due, ...server }) => server),
  };
}

interface BackOff {
  readonly first: number;
  readonly most: number;
}

/**
 * By cause: the join reaches a server within seconds and an outage lasts minutes, while a server that forbids us or
 * lies will hardly change its mind. None is given up on.
 */
const BACK_OFF: Readonly<Record<ServerFault, BackOff>> = {
  "not-seen-join": { first: 1_000, most: 60_000 },
  "unknown-event": { first: 2_000, most: 5 * 60_000 },
  unreachable: { first: 5_000, most: 10 * 60_000 },
  "server-error": { first: 5_000, most: 10 * 60_000 },
  forbidden: { first: 60_000, most: 60 * 60_000 },
  "invalid-data": { first: 60_000, most: 60 * 60_000 },
};

function failed(
  servers: readonly ServerStanding[],
  event: Extract<ResyncEvent, { type: "server-failed" }>,
): ServerStanding {
  const { name, cause, detail, at, jitter } = event;
  const failures = (servers.find((server) => server.name === name)?.failures ?? 0) + 1;
  const { first, most } = BACK_OFF[cause];
  const wait = Math.min(most, first * 2 ** Math.min(failures - 1, 20)) * (1 + jitter / 5);
  const nextAttempt = at + Math.round(Math.max(wait, event.retryAfterMs ?? 0));
  return { name, result: "failed", cause, detail, failures, nextAttempt };
}

export type NextServer =
  | { readonly kind: "ask"; readonly name: string }
  /** Until then nobody is to be asked; undefined: nobody is known at all. */
  | { readonly kind: "wait"; readonly until?: number };

const PAUSE_AFTER_FAILURE = { each: 200, most: 5_000 };

/**
 * Whom to ask next, of those that are due: the preferred server, then those that answered, then in the order of the
 * list, at whose head stands the one that we joined by and that surely knows our join. A failed server is due again
 * when its own wait is over, and its waits grow, so that those behind it get their turn.
 */
export function nextServer(state: ResyncState, now: number): NextServer {
  const pause = Math.min(PAUSE_AFTER_FAILURE.most, PAUSE_AFTER_FAILURE.each * state.failuresInARow);
  const rested = state.failuresInARow === 0 ? now : state.lastFailureAt + pause;
  const due = state.servers.filter((server) => (server.nextAttempt ?? 0) <= now);
  const [best] = due.toSorted((a, b) => rank(state, a) - rank(state, b));
  if (best !== undefined) return rested <= now ? { kind: "ask", name: best.name } : { kind: "wait", until: rested };
  const attempts = state.servers.flatMap((server) => server.nextAttempt ?? []);
  return attempts.length === 0 ? { kind: "wait" } : { kind: "wait", until: Math.max(rested, Math.min(...attempts)) };
}

/** Sorting is stable: what ranks alike stays in the order of the list. */
function rank(state: ResyncState, server: ServerStanding): number {
  if (server.name === state.preferredServer) return 0;
  return server.result === "answered" ? 1 : 2;
}

/** What others are told: of thousands of servers, the tried ones. */
export function progressOf(state: ResyncState): ResyncProgress {
  const { phase, partialEvents, idsLeft, servers } = state;
  return { phase, partialEvents, idsLeft, servers: servers.filter((server) => server.result !== "untried") };
}
