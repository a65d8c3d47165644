import {
  condition,
  continueAsNew,
  CancellationScope,
  isCancellation,
  proxyActivities,
  setCurrentDetails,
  setHandler,
  upsertMemo,
  upsertSearchAttributes,
  workflowInfo,
} from "@temporalio/workflow";
import type { Activities } from "../activities/index.ts";
import {
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
import { initialState, nextServer, progressOf, reduce, type ResyncEvent, type ResyncState } from "./resync-progress.ts";

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
    apply({ type: "server-preferred", name });
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

/** The resync's loop: which events next, what they lack, repair them; when none is left, the room itself. */
async function repairRoom(input: ResyncInput, room: FollowedRoom): Promise<ResyncOutcome> {
  const target = targetOf(input);
  for (;;) {
    const step = await quick.nextResyncStep(target);
    switch (step.kind) {
      case "superseded":
        return "superseded";
      case "left":
        return "completed-by-leave";
      case "fetch":
        room.apply({ type: "partial-events", count: step.partialEvents });
        for (const eventId of step.eventIds) {
          await fetchState(input, room, eventId);
          await renewHistory(input, room);
        }
        break;
      case "repair":
        room.apply({ type: "phase", phase: "authorising" });
        room.apply({ type: "partial-events", count: step.partialEvents });
        await long.repairEvents({ ...target, eventIds: step.eventIds });
        break;
      case "finish": {
        room.apply({ type: "phase", phase: "finishing" });
        room.apply({ type: "partial-events", count: 0 });
        const finished = await long.finishResync(target);
        if (finished.kind === "completed") return "completed";
        if (finished.kind === "superseded") return "superseded";
      }
    }
    await renewHistory(input, room);
  }
}

/** Asks one server after the other for the state at an event until it is whole. Never ends in failure. */
async function fetchState(input: ResyncInput, room: FollowedRoom, eventId: string): Promise<void> {
  const target = targetOf(input);
  for (let listedAt = 0; ;) {
    if (Date.now() - listedAt > SERVERS_LISTED_EVERY_MS) {
      room.apply({ type: "servers-listed", names: await quick.listServers(target) });
      listedAt = Date.now();
    }
    const next = nextServer(room.state(), Date.now());
    if (next.kind === "ask") {
      if (await askServer(input, room, { eventId, server: next.name })) return;
      continue;
    }
    room.apply({ type: "phase", phase: "waiting" });
    await room.rest(next.until === undefined ? NO_SERVER_WAIT_MS : next.until - Date.now());
    await renewHistory(input, room);
    const step = await quick.nextResyncStep(target);
    if (step.kind !== "fetch") return;
    room.apply({ type: "partial-events", count: step.partialEvents });
  }
}

/** Whether the server is the last to be asked. */
async function askServer(
  input: ResyncInput,
  room: FollowedRoom,
  { eventId, server: name }: { readonly eventId: string; readonly server: string },
): Promise<boolean> {
  room.apply({ type: "phase", phase: "fetching" });
  const fetched = await room.unlessAnotherIsPreferred(name, () =>
    long.fetchMissingState({ ...targetOf(input), eventId, server: name }),
  );
  switch (fetched?.kind) {
    case undefined:
      return false;
    case "complete":
      room.apply({ type: "server-answered", name });
      room.apply({ type: "ids-left", count: 0 });
      return true;
    case "superseded":
      return true;
    case "failed": {
      const { kind: _kind, idsLeft, ...failure } = fetched;
      if (idsLeft !== undefined) room.apply({ type: "ids-left", count: idsLeft });
      room.apply({ type: "server-failed", name, ...failure, at: Date.now(), jitter: Math.random() });
      return false;
    }
  }
}

async function renewHistory(input: ResyncInput, room: FollowedRoom): Promise<void> {
  const { continueAsNewSuggested, historyLength } = workflowInfo();
  if (!continueAsNewSuggested && historyLength < MAX_HISTORY_EVENTS) return;
  await continueAsNew<typeof resync>({ ...input, carried: room.state() });
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
  if (phaseChanged || countChanged || before?.servers !== state.servers) {
    upsertMemo({ phase: state.phase, partialEvents: state.partialEvents, servers: progress.servers.slice(-20) });
  }
  if (input.searchAttributes === false || !(phaseChanged || countChanged)) return;
  upsertSearchAttributes([
    { key: MATRIX_ROOM_ID, value: input.roomId },
    { key: RESYNC_PHASE, value: state.phase },
    { key: PARTIAL_EVENTS, value: state.partialEvents },
  ]);
}
