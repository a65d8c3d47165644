import {
  EVERY_STATE,
  MOST_MISSING_SHOWN,
  type FailedAttempt,
  type MissingState,
  type ResyncInput,
  type ResyncPhase,
  type ResyncProgress,
  type ServerFault,
  type ServerStanding,
  type StateWait,
} from "./contract.ts";

/**
 * The state machine behind the workflow `resync`, apart from it: pure, without a clock, so that it can be tested and
 * carried whole from run to run. All times are milliseconds since the epoch.
 */
export interface ResyncState extends Omit<ResyncProgress, "missingStates"> {
  readonly preferredServer?: string;
  /** Failures since a server last helped: most of them say the same, so the next one is asked after a pause. */
  readonly failuresInARow: number;
  readonly lastFailureAt: number;
  /** Told by the last step, which each run asks anew. */
  readonly missing: MissingIds;
  readonly waits: readonly StateWait[];
  /** The states that were asked for in vain, the latest last: the others have their turn first. */
  readonly failedInTurn: readonly string[];
}

/** The events at which states are missing. */
export interface MissingIds {
  readonly ofJoin: readonly string[];
  readonly ofOthers: readonly string[];
}

export type ResyncEvent =
  | { readonly type: "phase"; readonly phase: ResyncPhase }
  | { readonly type: "partial-events"; readonly count: number }
  | { readonly type: "ids-left"; readonly count: number }
  | { readonly type: "states-missing"; readonly missing: MissingIds }
  | ({ readonly type: "servers-listed"; readonly names: readonly string[] } & FullList)
  | { readonly type: "server-answered"; readonly name: string; readonly eventId: string }
  | {
      readonly type: "server-failed";
      readonly name: string;
      /** The state that it was asked for; {@link EVERY_STATE}: it is to be asked for none until its wait is over. */
      readonly eventId: string;
      readonly cause: ServerFault;
      readonly detail: string;
      readonly at: number;
      /** What the server asked for. */
      readonly retryAfterMs?: number;
      /** Between 0 and 1: spreads the attempts of many rooms. */
      readonly jitter: number;
    }
  | ({ readonly type: "server-preferred"; readonly name: string } & FullList)
  | { readonly type: "retry-wished" };

interface FullList {
  /** As runs that an earlier release has begun do: nobody gets into a list that is full. */
  readonly staysClosed?: boolean;
}

const NOTHING_MISSING: MissingIds = { ofJoin: [], ofOthers: [] };

/** @param carried by the run before, perhaps of an earlier release */
export function initialState(carried?: ResyncInput["carried"]): ResyncState {
  const { missingStates: _shown, ...rest } = carried ?? {
    phase: "fetching",
    partialEvents: 0,
    idsLeft: 0,
    servers: [],
    failuresInARow: 0,
    lastFailureAt: 0,
  };
  return {
    ...rest,
    missing: NOTHING_MISSING,
    waits: carried?.waits ?? rest.servers.flatMap(waitOfServer),
    failedInTurn: carried?.failedInTurn ?? [],
  };
}

/** An earlier release kept one wait a server. */
function waitOfServer({ name, cause, failures, nextAttempt }: ServerStanding): readonly StateWait[] {
  if (cause === undefined || nextAttempt === undefined) return [];
  return [{ eventId: EVERY_STATE, name, cause, failures, nextAttempt }];
}

/** What the next run begins with: bounded, however many states and servers there are. */
export function carriedOf(state: ResyncState): NonNullable<ResyncInput["carried"]> {
  const { missing: _asked, ...carried } = state;
  return carried;
}

export function reduce(state: ResyncState, event: ResyncEvent): ResyncState {
  switch (event.type) {
    case "phase":
      return { ...state, phase: event.phase };
    case "partial-events":
      return { ...state, partialEvents: event.count };
    case "ids-left":
      return { ...state, idsLeft: event.count };
    case "states-missing":
      return sameIds(state.missing, event.missing) ? state : { ...state, missing: event.missing };
    case "servers-listed":
      return { ...state, servers: withListed(state, event) };
    case "server-answered":
      return answered(state, event);
    case "server-failed":
      return failed(state, event);
    case "server-preferred":
      return preferring(withoutWaits(state), event);
    case "retry-wished":
      return withoutWaits(state);
  }
}

function sameIds(one: MissingIds, other: MissingIds): boolean {
  return one.ofJoin.join() === other.ofJoin.join() && one.ofOthers.join() === other.ofOthers.join();
}

/** Carried from run to run: of a room on thousands of servers, these are enough to go round. */
const MOST_SERVERS = 500;

/** And of waits. The soonest over are forgotten first; the pause after each failure bounds the attempts all the same. */
const MOST_WAITS = 500;
const MOST_FAILED_IN_TURN = 500;
const MOST_DETAIL = 500;

/** Whether whoever comes in now takes another's place. */
export function isListFull({ servers }: ResyncState): boolean {
  return servers.length >= MOST_SERVERS;
}

interface NewNames extends FullList {
  readonly names: readonly string[];
}

/**
 * Where all cannot be kept, those that fail most give up their places to names that are new, so that a room on thousands
 * of servers comes to ask each. Those that were asked in vain before come back last.
 */
function withListed(state: ResyncState, { names, staysClosed = false }: NewNames): readonly ServerStanding[] {
  const { servers, waits } = state;
  const known = new Set(servers.map((server) => server.name));
  const askedInVain = new Set(waits.map((wait) => wait.name));
  const unknown = [...new Set(names)].filter((name) => !known.has(name));
  const fresh = staysClosed
    ? unknown
    : [...unknown.filter((name) => !askedInVain.has(name)), ...unknown.filter((name) => askedInVain.has(name))];
  const lacking = servers.length + fresh.length - MOST_SERVERS;
  const kept = staysClosed ? servers : without(servers, mostFailed(state, lacking));
  const added = fresh.slice(0, Math.max(0, MOST_SERVERS - kept.length));
  return [...kept, ...added.map((name): ServerStanding => ({ name, result: "untried", failures: 0 }))];
}

/** The preferred server is always among those that are asked, whoever has to go for it. */
function preferring(
  state: ResyncState,
  { name, staysClosed = false }: FullList & { readonly name: string },
): ResyncState {
  const preferring = { ...state, preferredServer: name };
  const isKnown = state.servers.some((server) => server.name === name);
  const full = !staysClosed && !isKnown && isListFull(state) && mostFailed(state, 1).length === 0;
  const servers = full ? state.servers.slice(0, -1) : state.servers;
  return { ...preferring, servers: withListed({ ...preferring, servers }, { names: [name], staysClosed }) };
}

/** So many at most; never the one that an operator prefers, nor the head of the list, which surely knows our join. */
function mostFailed({ servers, preferredServer }: ResyncState, count: number): readonly ServerStanding[] {
  if (count <= 0) return [];
  const failing = servers.slice(1).filter(({ result, name }) => result === "failed" && name !== preferredServer);
  return failing.toSorted((a, b) => b.failures - a.failures).slice(0, count);
}

function without(servers: readonly ServerStanding[], gone: readonly ServerStanding[]): readonly ServerStanding[] {
  const leaving = new Set(gone);
  return servers.filter((server) => !leaving.has(server));
}

function replaced(servers: readonly ServerStanding[], standing: ServerStanding): readonly ServerStanding[] {
  return servers.map((server) => (server.name === standing.name ? standing : server));
}

function withoutWaits(state: ResyncState): ResyncState {
  return {
    ...state,
    failuresInARow: 0,
    waits: state.waits.map((wait) => ({ ...wait, nextAttempt: 0 })),
    servers: state.servers.map(({ nextAttempt: _due, ...server }) => server),
  };
}

/** It gave all of the state, for which nobody is asked any more. */
function answered(
  state: ResyncState,
  { name, eventId }: Extract<ResyncEvent, { type: "server-answered" }>,
): ResyncState {
  return {
    ...state,
    failuresInARow: 0,
    servers: replaced(state.servers, { name, result: "answered", failures: 0 }),
    waits: state.waits.filter((wait) => (wait.eventId === EVERY_STATE ? wait.name !== name : wait.eventId !== eventId)),
    failedInTurn: state.failedInTurn.filter((id) => id !== eventId),
  };
}

function isOutage(wait: StateWait, name: string): boolean {
  return wait.eventId === EVERY_STATE && wait.name === name;
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

/** A server that asks for a longer rest than any of ours may be lying, and would have the room wait for ever. */
const LONGEST_WISHED_WAIT_MS = 60 * 60_000;

/** A server that answers may lack one state and have another; one that does not answer is asked for none. */
function failed(state: ResyncState, event: Extract<ResyncEvent, { type: "server-failed" }>): ResyncState {
  const { name, cause, at, jitter } = event;
  const eventId = cause === "unreachable" ? EVERY_STATE : event.eventId;
  const earlier = state.waits.find((wait) => wait.eventId === eventId && wait.name === name);
  const others = state.waits.filter((wait) => wait !== earlier && !isOutage(wait, name));
  const failures = (earlier?.failures ?? 0) + 1;
  const { first, most } = BACK_OFF[cause];
  const wait = Math.min(most, first * 2 ** Math.min(failures - 1, 20)) * (1 + jitter / 5);
  const nextAttempt = at + Math.round(Math.max(wait, Math.min(event.retryAfterMs ?? 0, LONGEST_WISHED_WAIT_MS)));
  const standing: ServerStanding = {
    name,
    result: "failed",
    cause,
    detail: event.detail.slice(0, MOST_DETAIL),
    failures: (state.servers.find((server) => server.name === name)?.failures ?? 0) + 1,
    nextAttempt,
  };
  return {
    ...state,
    failuresInARow: state.failuresInARow + 1,
    lastFailureAt: at,
    servers: replaced(state.servers, standing),
    waits: [...longest(others), { eventId, name, cause, failures, nextAttempt }],
    failedInTurn: [...state.failedInTurn.filter((id) => id !== event.eventId), event.eventId].slice(
      -MOST_FAILED_IN_TURN,
    ),
  };
}

function longest(waits: readonly StateWait[]): readonly StateWait[] {
  if (waits.length < MOST_WAITS) return waits;
  const soonest = Math.min(...waits.map((wait) => wait.nextAttempt));
  const forgotten = waits.findIndex((wait) => wait.nextAttempt === soonest);
  return waits.filter((_wait, index) => index !== forgotten);
}

export type NextTurn =
  | { readonly kind: "ask"; readonly eventId: string; readonly name: string }
  /** Until then nobody is to be asked for anything; undefined: nobody is known at all. */
  | { readonly kind: "wait"; readonly until?: number };

const PAUSE_AFTER_FAILURE = { each: 200, most: 5_000 };

/**
 * Which missing state is asked for next, and whom. What our join builds on goes first, and, as long as it is asked for
 * in vain, by turns with the rest; of each kind, what was not asked for yet, then what has failed longest ago.
 *
 * Of the servers that are due for a state: the preferred one, then those that answered, then in the order of the list,
 * at whose head stands the one that we joined by and that surely knows our join. A server that has failed is due again
 * when its wait is over, and its waits grow, so that those behind it get their turn.
 */
export function nextTurn(state: ResyncState, missing: MissingIds, now: number): NextTurn {
  const due = dueTable(state);
  const pause = Math.min(PAUSE_AFTER_FAILURE.most, PAUSE_AFTER_FAILURE.each * state.failuresInARow);
  const rested = state.failuresInARow === 0 ? now : state.lastFailureAt + pause;
  const order = inTurn(state, missing);
  for (const eventId of order) {
    const name = bestServer(state, (server) => due(eventId, server) <= now);
    if (name !== undefined) return rested <= now ? { kind: "ask", eventId, name } : { kind: "wait", until: rested };
  }
  let earliest = Infinity;
  for (const eventId of order) {
    for (const { name } of state.servers) earliest = Math.min(earliest, due(eventId, name));
  }
  return earliest === Infinity ? { kind: "wait" } : { kind: "wait", until: Math.max(rested, earliest) };
}

/** When a server is due for a state; 0: at once. */
function dueTable({ waits }: ResyncState): (eventId: string, name: string) => number {
  const table = new Map<string, Map<string, number>>();
  for (const { eventId, name, nextAttempt } of waits) {
    const ofState = table.get(eventId) ?? new Map<string, number>();
    table.set(eventId, ofState.set(name, nextAttempt));
  }
  const outages = table.get(EVERY_STATE);
  return (eventId, name) => Math.max(outages?.get(name) ?? 0, table.get(eventId)?.get(name) ?? 0);
}

function inTurn({ failedInTurn, failuresInARow }: ResyncState, { ofJoin, ofOthers }: MissingIds): readonly string[] {
  const place = new Map(failedInTurn.map((eventId, index) => [eventId, index]));
  const rotated = (eventIds: readonly string[]): readonly string[] =>
    eventIds.toSorted((a, b) => (place.get(a) ?? -1) - (place.get(b) ?? -1));
  const last = failedInTurn.at(-1);
  const othersFirst = failuresInARow > 0 && last !== undefined && ofJoin.includes(last);
  return othersFirst ? [...rotated(ofOthers), ...rotated(ofJoin)] : [...rotated(ofJoin), ...rotated(ofOthers)];
}

function bestServer(state: ResyncState, isDue: (name: string) => boolean): string | undefined {
  let best: ServerStanding | undefined;
  for (const server of state.servers) {
    // Of those that rank alike the first in the list.
    if ((best === undefined || rank(state, server) < rank(state, best)) && isDue(server.name)) best = server;
  }
  return best?.name;
}

function rank(state: ResyncState, server: ServerStanding): number {
  if (server.name === state.preferredServer) return 0;
  return server.result === "answered" ? 1 : 2;
}

/** What others are told: of thousands of servers, the tried ones. */
export function progressOf(state: ResyncState): ResyncProgress & { readonly missingStates: readonly MissingState[] } {
  const { phase, partialEvents, idsLeft, servers, missing } = state;
  return {
    phase,
    partialEvents,
    idsLeft,
    servers: servers.filter((server) => server.result !== "untried"),
    missingStates: [...missing.ofJoin, ...missing.ofOthers].slice(0, MOST_MISSING_SHOWN).map((eventId, index) => ({
      eventId,
      ofJoin: index < missing.ofJoin.length,
      servers: attemptsFor(state, eventId),
    })),
  };
}

const MOST_ATTEMPTS_SHOWN = 50;

function attemptsFor({ waits }: ResyncState, eventId: string): readonly FailedAttempt[] {
  return waits
    .filter((wait) => wait.eventId === eventId || wait.eventId === EVERY_STATE)
    .slice(-MOST_ATTEMPTS_SHOWN)
    .map(({ eventId: _same, nextAttempt, ...attempt }) => ({ ...attempt, ...(nextAttempt > 0 && { nextAttempt }) }));
}
