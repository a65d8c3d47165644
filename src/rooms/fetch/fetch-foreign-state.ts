import { FederationFailure } from "../../federation-client/failures.ts";
import { isEventId, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import {
  deleteResyncStateIds,
  loadResyncStateIds,
  saveResyncStateIds,
  type ResyncStateIds,
} from "../../storage/resync-state-ids.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import { callOptions, fetchEvents, intakeIntoDatabase, notStored } from "./fetch-events.ts";
import { foreignStateAfter, ForeignStateUnusable } from "./foreign-state.ts";

export interface ForeignStateToFetch {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** The event at which the state is missing, itself missing too. */
  readonly eventId: EventId;
  readonly server: ServerName;
  readonly signal?: AbortSignal;
  /** Told how many events are still to be fetched, as it goes. */
  readonly onProgress?: (idsLeft: number) => void;
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

/** From a tenth of the ids missing, one long `/state` is cheaper than many `/event`. */
const WHOLE_STATE_FROM = 0.1;

/** `/state` of the largest rooms takes residents minutes. */
const STATE_TIMEOUT_MS = 10 * 60_000;

/**
 * Fetches the state at an event that we lack: the ids, once, from whichever server answers; then the events that are
 * not stored yet, from this one, chunk by chunk, so that a crash or another server goes on where this one stopped.
 *
 * @throws FederationFailure, the caller's abort
 */
export async function fetchForeignState(ctx: RoomsContext, request: ForeignStateToFetch): Promise<ForeignStateFetched> {
  const told = await stateIdsAt(ctx, request);
  const ids = [...new Set([...told.stateEventIds, ...told.authEventIds, request.eventId])];
  let missing = await notStored(ctx, ids);
  request.onProgress?.(missing.length);
  let provedFalse = false;
  if (missing.length >= ids.length * WHOLE_STATE_FROM && missing.length > 1) {
    provedFalse = await fetchWholeStateOrSome(ctx, request, missing);
    missing = await notStored(ctx, missing);
    request.onProgress?.(missing.length);
  }
  await fetchOneByOne(ctx, request, missing);
  missing = await notStored(ctx, missing);
  request.onProgress?.(missing.length);
  if (missing.length === 0) return await confirmState(ctx, request, told);
  // Its ids may be a lie or a truth that this server alone knows: the next one is asked for its own.
  await deleteResyncStateIds(ctx.database.pool, request.roomId, request.eventId);
  const reason = `it did not give ${missing.length} of its events${provedFalse ? ", and some that are not genuine" : ""}`;
  return { kind: "incomplete", idsLeft: missing.length, reason, provedFalse };
}

/** That the server has no such event is part of what it gave; any other failure leaves the rest to another server. */
async function fetchOneByOne(
  ctx: RoomsContext,
  { roomId, rules, server, signal }: ForeignStateToFetch,
  eventIds: readonly EventId[],
): Promise<void> {
  try {
    await fetchEvents(ctx, { roomId, rules, server, eventIds, ...(signal === undefined ? {} : { signal }) });
  } catch (error) {
    if (!(error instanceof FederationFailure) || error.kind !== "refused" || error.status !== 404) throw error;
    ctx.logger.info({ err: error, roomId }, "a server lacks an event of a state");
  }
}

/** The ids of the state and of its auth chain. */
async function stateIdsAt(ctx: RoomsContext, request: ForeignStateToFetch): Promise<ResyncStateIds> {
  const { roomId, eventId, server } = request;
  const stored = await loadResyncStateIds(ctx.database.pool, roomId, eventId);
  if (stored !== undefined) return stored;
  const answer = await ctx.federation.stateIds(server, { roomId, eventId }, callOptions(request.signal));
  const stateEventIds = [...new Set(answer.pdu_ids)];
  const authEventIds = [...new Set(answer.auth_chain_ids)];
  if (stateEventIds.length === 0 || ![...stateEventIds, ...authEventIds].every(isEventId)) {
    throw new FederationFailure({ kind: "bad-response", server, reason: "its /state_ids is empty or holds non-ids" });
  }
  const told: ResyncStateIds = { roomId, eventId, serverName: server, stateEventIds, authEventIds };
  await atStep(ctx, "store state ids", () => saveResyncStateIds(ctx.database.pool, told));
  return told;
}

/** A server that can't give the whole state at once, its room being too large for it, may still give it piece by piece. */
async function fetchWholeStateOrSome(
  ctx: RoomsContext,
  request: ForeignStateToFetch,
  missing: readonly EventId[],
): Promise<boolean> {
  try {
    return await fetchWholeState(ctx, request, missing);
  } catch (error) {
    if (!(error instanceof FederationFailure) || error.kind !== "refused" || (error.status ?? 0) < 500) throw error;
    ctx.logger.info({ err: error, roomId: request.roomId }, "a server could not give a whole state at once");
    return false;
  }
}

/** Whether some of what came was proved false. */
async function fetchWholeState(
  ctx: RoomsContext,
  request: ForeignStateToFetch,
  missing: readonly EventId[],
): Promise<boolean> {
  const { roomId, rules, eventId, server } = request;
  const wanted = new Set(missing);
  const intake = intakeIntoDatabase(ctx, { roomId, rules, wanted });
  let arrived = 0;
  const onEvent = (_kind: unknown, pdu: JsonValue): void | Promise<void> => {
    request.signal?.throwIfAborted();
    arrived += 1;
    if (arrived % 500 === 0) request.onProgress?.(Math.max(0, missing.length - arrived));
    return intake.add(pdu);
  };
  const options = { ...callOptions(request.signal), timeoutMs: STATE_TIMEOUT_MS };
  try {
    await ctx.federation.state(server, { roomId, eventId, onEvent }, options);
  } catch (error) {
    // What came before it broke off is kept; should that fail too, the first error is the one that tells why.
    await intake.settle().catch(() => undefined);
    throw error;
  }
  const { dropped } = await intake.settle();
  for (const drop of dropped) ctx.logger.warn({ roomId, server, ...drop }, "an event of /state was dropped");
  return dropped.some((drop) => drop.kind !== "no-key");
}

/** The ids make a state that can be used, or are forgotten so that another server is asked. */
async function confirmState(
  ctx: RoomsContext,
  request: ForeignStateToFetch,
  told: ResyncStateIds,
): Promise<ForeignStateFetched> {
  const { roomId, rules, eventId, server } = request;
  try {
    await commit(ctx, "confirm a state", async (tx) => {
      // Another process may have had less luck with the same ids, and have forgotten them.
      await saveResyncStateIds(tx, told);
      await foreignStateAfter({ database: ctx.database, tx, roomId, rules }, eventId);
    });
    return { kind: "complete" };
  } catch (error) {
    if (!(error instanceof ForeignStateUnusable)) throw error;
    await deleteResyncStateIds(ctx.database.pool, roomId, eventId);
    throw new FederationFailure({ kind: "bad-response", server, reason: error.message, cause: error });
  }
}
