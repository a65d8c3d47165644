import {
  condition,
  continueAsNew,
  CancellationScope,
  isCancellation,
  patched,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  upsertMemo,
  upsertSearchAttributes,
  workflowInfo,
} from "@temporalio/workflow";
import type { Activities } from "../activities/index.ts";
import {
  EVERY_STATE,
  idsLeftSignal,
  MATRIX_ROOM_ID,
  PARTIAL_EVENTS,
  preferServerSignal,
  progressQuery,
  RESYNC_PHASE,
  retrySignal,
  type ResyncInput,
  type ResyncOutcome,
} from "./contract.ts";
import { describeProgress } from "./describe-progress.ts";
import {
  carriedOf,
  initialState,
  isListFull,
  nextTurn,
  progressOf,
  reduce,
  type MissingIds,
  type ResyncEvent,
  type ResyncState,
} from "./resync-progress.ts";

/**
 * Retried for ever: a database that is away comes back, and an error of ours is repaired by a new release, upon which
 * the room goes on where it was.
 */
const retry = { initialInterval: "1s", backoffCoefficient: 2, maximumInterval: "1m" } as const;

/** A worker that was killed is noticed by its silence, whichever step it was in. */
const heartbeatTimeout = "5s";

const quick = proxyActivities<Activities>({ startToCloseTimeout: "1m", heartbeatTimeout, retry });
const long = proxyActivities<Activities>({
  startToCloseTimeout: "1h",
  heartbeatTimeout,
  retry,
  // Two fetches of one state would do the work twice: the next begins when the cancelled one has ended.
  cancellationType: "WAIT_CANCELLATION_COMPLETED",
});

/** A run's history stays small, however long the resync of a room takes. */
const MAX_HISTORY_EVENTS = 2_000;

/** Servers join the room while it is repaired, and an operator may name one. */
const SERVERS_LISTED_EVERY_MS = 60_000;

/** Where no server is known at all. */
const NO_SERVER_WAIT_MS = 60_000;

/**
 * Repairs a partially joined room: fetches the full state before its partial events, judges them anew, and clears the
 * room's partial flag. What is partial stands in the database; this only says what next, when, and what if it fails.
 */
export async function resync(input: ResyncInput): Promise<ResyncOutcome> {
  const room = followRoom(input);
  try {
    return await repairRoom(input, room);
  } catch (error) {
    if (isCancellation(error)) {
      await CancellationScope.nonCancellable(() => quick.recordCancelled(targetOf(input)));
    }
    throw error;
  }
}

/** Nobody gets into a full list of servers in a run that an earlier release has begun. */
function staysClosed(state: ResyncState): boolean {
  return isListFull(state) && !patched("full-list-lets-in");
}

interface FollowedRoom {
  state(): ResyncState;
  apply(event: ResyncEvent): void;
  /** Waits, unless a signal asks to go on. */
  rest(ms: number): Promise<void>;
  /** Does the work, unless an operator meanwhile prefers another server than this one: undefined then. */
  unlessAnotherIsPreferred<T>(server: string, work: () => Promise<T>): Promise<T | undefined>;
}

/** Keeps the state of the room's resync, takes signals, answers queries, and tells the Temporal UI. */
function followRoom(input: ResyncInput): FollowedRoom {
  let state = initialState(input.carried);
  let wakeUps = 0;
  let asking: { readonly server: string; readonly scope: CancellationScope } | undefined;
  const apply = (event: ResyncEvent): void => {
    const before = state;
    state = reduce(state, event);
    tellUi(input, before, state);
  };
  setHandler(progressQuery, () => progressOf(state));
  setHandler(idsLeftSignal, (count) => apply({ type: "ids-left", count }));
  setHandler(retrySignal, () => {
    wakeUps += 1;
    apply({ type: "retry-wished" });
  });
  setHandler(preferServerSignal, (name) => {
    wakeUps += 1;
    apply({ type: "server-preferred", name, staysClosed: staysClosed(state) });
    if (asking !== undefined && asking.server !== name) asking.scope.cancel();
  });
  tellUi(input, undefined, state);
  return {
    state: () => state,
    apply,
    rest: async (ms) => {
      const seen = wakeUps;
      await condition(() => wakeUps > seen, Math.max(1, ms));
    },
    unlessAnotherIsPreferred: async (server, work) => {
      const scope = new CancellationScope();
      asking = { server, scope };
      try {
        return await scope.run(work);
      } catch (error) {
        // The whole workflow's cancel is not ours to take.
        if (!isCancellation(error) || CancellationScope.current().consideredCancelled) throw error;
        return undefined;
      } finally {
        asking = undefined;
      }
    },
  };
}

function targetOf({ roomId, joinEventId }: ResyncInput): { readonly roomId: string; readonly joinEventId: string } {
  return { roomId, joinEventId };
}

/** What an activity says is next, in the same breath as what it has done; those of an earlier release don't. */
type Step = Awaited<ReturnType<Activities["nextResyncStep"]>>;

function nextOf(done: object): Step | undefined {
  return "next" in done ? (done.next as Step) : undefined;
}

async function stepAfter(input: ResyncInput, known: Step | undefined): Promise<Step> {
  return known ?? (await quick.nextResyncStep(targetOf(input)));
}

/** The resync's loop: which events next, what they lack, repair them; when none is left, the room itself. */
async function repairRoom(input: ResyncInput, room: FollowedRoom): Promise<ResyncOutcome> {
  const target = targetOf(input);
  // A run that an earlier release has begun goes on as it did, until it is renewed.
  const takesTurns = patched("missing-states-take-turns");
  const refreshServers = serverList(input, room);
  let known: Step | undefined;
  for (;;) {
    const step = await stepAfter(input, known);
    known = undefined;
    switch (step.kind) {
      case "completed":
      case "superseded":
        return step.kind;
      case "left":
        return "completed-by-leave";
      case "fetch":
        room.apply({ type: "partial-events", count: step.partialEvents });
        if (takesTurns) known = await fetchByTurns(input, room, { step, refreshServers });
        else await fetchOneByOne(input, room, step.eventIds);
        break;
      case "repair":
        room.apply({ type: "states-missing", missing: NOTHING_MISSING });
        room.apply({ type: "phase", phase: "authorising" });
        room.apply({ type: "partial-events", count: step.partialEvents });
        known = nextOf(await long.repairEvents({ ...target, eventIds: step.eventIds }));
        break;
      case "finish": {
        const finished = await finishRoom(input, room);
        if (finished === "completed") return finished;
        // The worker may have been killed between its commit and its report: the next step tells what became of the room.
        if (finished === "superseded" && !takesTurns) return finished;
      }
    }
    await renewHistory(input, room);
  }
}

async function finishRoom(input: ResyncInput, room: FollowedRoom): Promise<"completed" | "superseded" | "more"> {
  room.apply({ type: "states-missing", missing: NOTHING_MISSING });
  room.apply({ type: "phase", phase: "finishing" });
  room.apply({ type: "partial-events", count: 0 });
  return (await long.finishResync(targetOf(input))).kind;
}

interface FetchStep {
  readonly step: Extract<Step, { readonly kind: "fetch" }>;
  readonly refreshServers: ServerList;
}

async function fetchByTurns(
  input: ResyncInput,
  room: FollowedRoom,
  { step, refreshServers }: FetchStep,
): Promise<Step | undefined> {
  const missing = missingOf(step);
  room.apply({ type: "states-missing", missing });
  return await takeTurn(input, room, { missing, refreshServers: () => refreshServers(step.servers) });
}

const NOTHING_MISSING: MissingIds = { ofJoin: [], ofOthers: [] };

function missingOf({ eventIds, ofJoin = [] }: { eventIds: readonly string[]; ofJoin?: readonly string[] }): MissingIds {
  return { ofJoin, ofOthers: eventIds.filter((eventId) => !ofJoin.includes(eventId)) };
}

type ServerList = (atHand?: readonly string[]) => Promise<void>;

/** Takes a list of servers, the one at hand or else a new one, when the last has grown old. */
function serverList(input: ResyncInput, room: FollowedRoom): ServerList {
  let listedAt = 0;
  return async (atHand) => {
    if (Date.now() - listedAt <= SERVERS_LISTED_EVERY_MS) return;
    const names = atHand ?? (await quick.listServers(targetOf(input)));
    room.apply({ type: "servers-listed", names, staysClosed: staysClosed(room.state()) });
    listedAt = Date.now();
  };
}

interface Turn {
  readonly missing: MissingIds;
  readonly refreshServers: () => Promise<void>;
}

/** Asks one server for one missing state; where nobody is to be asked yet, or it did not help, waits for the next turn. */
async function takeTurn(
  input: ResyncInput,
  room: FollowedRoom,
  { missing, refreshServers }: Turn,
): Promise<Step | undefined> {
  for (;;) {
    await refreshServers();
    const turn = nextTurn(room.state(), missing, Date.now());
    if (turn.kind === "wait") {
      await untilNextTurn(room, turn.until);
      return undefined;
    }
    const asked = await askServer(input, room, { ...turn, about: turn.eventId });
    if (asked.isLast) return asked.next;
  }
}

async function untilNextTurn(room: FollowedRoom, until: number | undefined): Promise<void> {
  room.apply({ type: "phase", phase: "waiting" });
  await room.rest(until === undefined ? NO_SERVER_WAIT_MS : until - Date.now());
}

/** As runs of an earlier release do: each missing state is waited for before the next one is asked for. */
async function fetchOneByOne(input: ResyncInput, room: FollowedRoom, eventIds: readonly string[]): Promise<void> {
  for (const eventId of eventIds) {
    await fetchState(input, room, eventId);
    await renewHistory(input, room);
  }
}

/** Asks one server after the other for the state at an event until it is whole. Never ends in failure. */
async function fetchState(input: ResyncInput, room: FollowedRoom, eventId: string): Promise<void> {
  const refreshServers = serverList(input, room);
  for (;;) {
    await refreshServers();
    const next = nextTurn(room.state(), { ofJoin: [eventId], ofOthers: [] }, Date.now());
    if (next.kind === "ask") {
      if ((await askServer(input, room, { ...next, about: EVERY_STATE })).isLast) return;
      continue;
    }
    await untilNextTurn(room, next.until);
    await renewHistory(input, room);
    const step = await quick.nextResyncStep(targetOf(input));
    if (step.kind !== "fetch") return;
    room.apply({ type: "partial-events", count: step.partialEvents });
  }
}

interface Question {
  /** Where the state is missing. */
  readonly eventId: string;
  readonly name: string;
  /** What its failure is about. */
  readonly about: string;
}

interface Asked {
  /** No other server need be asked. */
  readonly isLast: boolean;
  readonly next?: Step | undefined;
}

async function askServer(input: ResyncInput, room: FollowedRoom, { eventId, name, about }: Question): Promise<Asked> {
  room.apply({ type: "phase", phase: "fetching" });
  const fetched = await room.unlessAnotherIsPreferred(name, () =>
    long.fetchMissingState({ ...targetOf(input), eventId, server: name }),
  );
  switch (fetched?.kind) {
    case undefined:
      return { isLast: false };
    case "complete":
      room.apply({ type: "server-answered", name, eventId: about });
      room.apply({ type: "ids-left", count: 0 });
      return { isLast: true, next: nextOf(fetched) };
    case "superseded":
      return { isLast: true };
    case "failed": {
      const { kind: _kind, idsLeft, ...failure } = fetched;
      if (idsLeft !== undefined) room.apply({ type: "ids-left", count: idsLeft });
      room.apply({ type: "server-failed", name, eventId: about, ...failure, at: Date.now(), jitter: Math.random() });
      return { isLast: false };
    }
  }
}

async function renewHistory(input: ResyncInput, room: FollowedRoom): Promise<void> {
  const { continueAsNewSuggested, historyLength } = workflowInfo();
  if (!continueAsNewSuggested && historyLength < MAX_HISTORY_EVENTS) return;
  await continueAsNew<typeof resync>({ ...input, carried: carriedOf(room.state()) });
}

/**
 * Phase, counts and causes go where an operator looks: search attributes and memo, which the server keeps, and the
 * current details, which a new run has to set again.
 */
function tellUi(input: ResyncInput, before: ResyncState | undefined, state: ResyncState): void {
  const progress = progressOf(state);
  setCurrentDetails(describeProgress(input.roomId, progress));
  const phaseChanged = before?.phase !== state.phase;
  const countChanged = before?.partialEvents !== state.partialEvents;
  if (phaseChanged || countChanged || before?.servers !== state.servers || before.missing !== state.missing) {
    const servers = progress.servers.slice(-20);
    // Each change of the memo is an entry of the history, so that only the first are told; the query tells more.
    const missingStates = progress.missingStates.slice(0, 5).map((one) => ({ ...one, servers: one.servers.slice(-5) }));
    upsertMemo({ phase: state.phase, partialEvents: state.partialEvents, servers, missingStates });
  }
  if (input.searchAttributes === false || !(phaseChanged || countChanged)) return;
  upsertSearchAttributes([
    { key: MATRIX_ROOM_ID, value: input.roomId },
    { key: RESYNC_PHASE, value: state.phase },
    { key: PARTIAL_EVENTS, value: state.partialEvents },
  ]);
}
