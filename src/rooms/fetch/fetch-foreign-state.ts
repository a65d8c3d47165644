import { FederationFailure, isServerTrouble } from "../../federation-client/failures.ts";
import { createReadBudget, type ReadBudget } from "../../federation-client/read-budget.ts";
import { isEventId, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StateMap } from "../../matrix/state.ts";
import {
  deleteResyncStateIds,
  fetchedSnapshots,
  loadStoredStateIds,
  loadToldState,
  noteSnapshotOfStateIds,
  saveResyncStateIds,
  unstoredStateIds,
  type ResyncStateIds,
  type ToldState,
} from "../../storage/resync-state-ids.ts";
import { rejectionsOf } from "../../storage/events.ts";
import { loadState, rememberWholeState } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { storeState, type StateSource, type StoredState } from "../events/state-before-event.ts";
import { commit } from "../failpoints.ts";
import type { DroppedPdu } from "../events/verify-pdus.ts";
import { callOptions, dropStored, fetchEvents, notStored } from "./fetch-events.ts";
import { fetchWhileCheaper, type WatchedFetch } from "./fetch-whole-state.ts";
import { ForeignStateUnusable, stateAfterTold } from "../events/foreign-state.ts";
import { isProvedFalse } from "./report-dropped.ts";

export interface ForeignStateToFetch {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** The event at which the state is missing, itself missing too. */
  readonly eventId: EventId;
  readonly server: ServerName;
  readonly signal?: AbortSignal;
  /** Told how many events are still to be fetched, as it goes. */
  readonly onProgress?: (idsLeft: number) => void;
  /** Bytes that all answers about the server's own ids may have together; those about another's may have half as many. */
  readonly maxBytes?: number;
}

/** The largest states that are known have 100 MB: they are read several times if need be. */
const MAX_BYTES = 1024 * 1024 * 1024;

interface FetchWithinBudget extends ForeignStateToFetch {
  readonly budget: ReadBudget;
}

export type ForeignStateFetched =
  | { readonly kind: "complete" }
  /** This server gave what it had. */
  | {
      readonly kind: "incomplete";
      readonly idsLeft: number;
      readonly reason: string;
      /** Some of what it gave was proved false: it is not merely without it. */
      readonly provedFalse: boolean;
    };

/**
 * Fetches the state at an event that we lack: the ids, once, from whichever server answers; then the events that are
 * not stored yet, from this one, chunk by chunk, so that a crash or another server goes on where this one stopped. What
 * becomes of it is told of this server's own ids, unless another's were enough.
 *
 * @throws FederationFailure, the caller's abort
 */
export async function fetchForeignState(ctx: RoomsContext, toFetch: ForeignStateToFetch): Promise<ForeignStateFetched> {
  const maxBytes = toFetch.maxBytes ?? MAX_BYTES;
  const request = { ...toFetch, budget: createReadBudget(maxBytes) };
  const { roomId, eventId, server } = request;
  const stored = await loadToldState(ctx.database.pool, roomId, eventId);
  if (stored !== undefined && stored.serverName !== server) {
    // Apart, for what another server has told may be long and false: this one is not to run out of bytes by it.
    const budget = createReadBudget(maxBytes / 2);
    const fetched = await completeFromAnother(ctx, { ...toFetch, budget }, stored);
    if (fetched !== undefined) return fetched;
    await deleteResyncStateIds(ctx.database.pool, roomId, eventId);
  }
  const told = stored?.serverName === server ? stored : await askForStateIds(ctx, request);
  const fetched =
    (await completeState(ctx, request, told)) ??
    // Another process may have had less luck with the same ids, and have forgotten them.
    (await completeState(ctx, request, await askForStateIds(ctx, request)));
  if (fetched !== undefined) return fetched;
  const reason = "what it told was forgotten while its events were fetched";
  return { kind: "incomplete", idsLeft: told.count, reason, provedFalse: false };
}

/**
 * From this server, what another one has told. Where that does not come to a sound state, the other may have lied: this
 * server is not to blame, and is asked for its own ids.
 */
async function completeFromAnother(
  ctx: RoomsContext,
  request: FetchWithinBudget,
  told: ToldState,
): Promise<ForeignStateFetched | undefined> {
  const { roomId, eventId, server } = request;
  let reason: string;
  try {
    const fetched = await completeState(ctx, request, told);
    if (fetched === undefined || fetched.kind === "complete") return fetched;
    ({ reason } = fetched);
  } catch (error) {
    // A server that is away or overloaded would not give its own ids either.
    if (!(error instanceof FederationFailure) || !isOfWhatWasAsked(error)) throw error;
    ({ reason } = error);
  }
  ctx.logger.info({ roomId, eventId, server, toldBy: told.serverName, reason }, "a told state could not be completed");
  return undefined;
}

function isOfWhatWasAsked(failure: FederationFailure): boolean {
  return failure.kind === "bad-response" || (failure.kind === "refused" && !isServerTrouble(failure));
}

/** Undefined if what was told is forgotten. */
async function completeState(
  ctx: RoomsContext,
  request: FetchWithinBudget,
  told: ToldState,
): Promise<ForeignStateFetched | undefined> {
  const dropped: DroppedPdu[] = [];
  const watched = { ...request, onDropped: (more: readonly DroppedPdu[]): void => void dropped.push(...more) };
  // As many ids as there may be: they stand in the database, and those that are missing once in memory.
  const missing = await unstoredStateIds(ctx.database.pool, told);
  for (const id of await notStored(ctx, [request.eventId])) missing.add(id);
  request.onProgress?.(missing.size);
  await fetchWhileCheaper(ctx, watched, { missing, total: told.count + 1 });
  await fetchOneByOne(ctx, watched, [...missing]);
  await dropStored(ctx, missing);
  request.onProgress?.(missing.size);
  if (missing.size === 0) return await confirmState(ctx, request, told);
  // Its ids may be a lie or a truth that this server alone knows: the next one is asked for its own.
  await deleteResyncStateIds(ctx.database.pool, request.roomId, request.eventId);
  const provedFalse = dropped.some(isProvedFalse);
  return { kind: "incomplete", idsLeft: missing.size, reason: reasonOf(missing, dropped), provedFalse };
}

function reasonOf(missing: ReadonlySet<EventId>, dropped: readonly DroppedPdu[]): string {
  const ungiven = `it did not give ${missing.size} of its events`;
  const fault = dropped.find(isProvedFalse);
  const [first] = dropped;
  if (fault !== undefined) return `${ungiven}, and some that are not genuine: ${describeDropped(fault)}`;
  return `${ungiven}: ${first === undefined ? [...missing].slice(0, 3).join(", ") : describeDropped(first)}`;
}

function describeDropped({ eventId, reason }: DroppedPdu): string {
  return `${eventId ?? "an event"}: ${reason}`;
}

/** That the server has no such event is part of what it gave; any other failure leaves the rest to another server. */
async function fetchOneByOne(
  ctx: RoomsContext,
  { roomId, rules, server, signal, budget, onDropped }: WatchedFetch,
  eventIds: readonly EventId[],
): Promise<void> {
  try {
    const stoppable = signal === undefined ? {} : { signal };
    await fetchEvents(ctx, { roomId, rules, server, eventIds, budget, onDropped, ...stoppable });
  } catch (error) {
    if (!(error instanceof FederationFailure) || error.kind !== "refused" || error.status !== 404) throw error;
    ctx.logger.info({ err: error, roomId }, "a server lacks an event of a state");
  }
}

/** The ids of the state and of its auth chain. */
async function askForStateIds(ctx: RoomsContext, request: FetchWithinBudget): Promise<ToldState> {
  const { roomId, eventId, server } = request;
  const answer = await ctx.federation.stateIds(server, { roomId, eventId }, callOptions(request));
  const stateEventIds = [...new Set(answer.pdu_ids)];
  const authEventIds = [...new Set(answer.auth_chain_ids)];
  if (stateEventIds.length === 0 || !stateEventIds.every(isEventId) || !authEventIds.every(isEventId)) {
    throw new FederationFailure({ kind: "bad-response", server, reason: "its /state_ids is empty or holds non-ids" });
  }
  const told: ResyncStateIds = { roomId, eventId, serverName: server, stateEventIds, authEventIds };
  await commit(ctx, "store state ids", (tx) => saveResyncStateIds(tx, told));
  return { roomId, eventId, serverName: server, count: stateEventIds.length + authEventIds.length };
}

/**
 * The ids make a state that can be used, which is stored while nobody waits for the room, or are forgotten so that
 * another server is asked. Undefined if they are forgotten already.
 */
async function confirmState(
  ctx: RoomsContext,
  request: ForeignStateToFetch,
  toldState: ToldState,
): Promise<ForeignStateFetched | undefined> {
  const { roomId, rules, eventId, server } = request;
  try {
    const refused = await commit(ctx, "confirm a state", async (tx) => {
      const answer = await loadStoredStateIds(tx, toldState);
      if (answer === undefined) return undefined;
      const source: StateSource = { database: ctx.database, tx, roomId, rules };
      const state = await stateAfterTold(source, eventId, answer.stateEventIds);
      const snapshotId = await storeForeignState(source, state.after);
      if (await noteSnapshotOfStateIds(tx, answer, snapshotId)) return state.refused;
      // They have been forgotten since.
      await saveResyncStateIds(tx, answer);
      await noteSnapshotOfStateIds(tx, answer, snapshotId);
      return state.refused;
    });
    if (refused === undefined) return undefined;
    await reportRefused(ctx, request, refused);
    return { kind: "complete" };
  } catch (error) {
    if (!(error instanceof ForeignStateUnusable)) throw error;
    await deleteResyncStateIds(ctx.database.pool, roomId, eventId);
    throw new FederationFailure({ kind: "bad-response", server, reason: error.message, cause: error });
  }
}

/** A log line names so many. */
const NAMED = 20;

/**
 * An honest server's state has no event that the auth rules refuse, as far as it reads these rules as we do. Where the
 * two of us differ, no server's state would ever do: it is used, without the event.
 */
async function reportRefused(
  ctx: RoomsContext,
  { roomId, eventId, server }: ForeignStateToFetch,
  eventIds: readonly EventId[],
): Promise<void> {
  if (eventIds.length === 0) return;
  const refused = await rejectionsOf(ctx.database.pool, eventIds.slice(0, NAMED));
  const told = { roomId, eventId, server, count: eventIds.length, refused };
  ctx.logger.warn(told, "a told state names events that the auth rules refuse");
}

/** States at neighboring events differ by little. */
async function storeForeignState(source: StateSource, state: StateMap): Promise<bigint> {
  const near: StoredState[] = [];
  for (const snapshotId of await fetchedSnapshots(source.tx, source.roomId)) {
    near.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  const { snapshotId } = await storeState(source, state, near);
  if (near.length === 0) rememberWholeState(source, snapshotId, state);
  return snapshotId;
}
