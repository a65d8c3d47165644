import { setMaxListeners } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { FederationFailure } from "../../federation-client/failures.ts";
import { depthOf, type Event, type Pdu } from "../../matrix/event.ts";
import { parsePdu } from "../../matrix/event-format.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import { isJsonObject } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { DatabaseUnavailable } from "../../storage/errors.ts";
import { forgetStaleJoins } from "../../storage/joins-under-way.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { roomRules } from "../../storage/rooms.ts";
import {
  deleteWaitingPdu,
  dueWaitingPdus,
  fewestAttempts,
  postponeWaitingPdu,
  type WaitingPdu,
} from "../../storage/waiting-pdus.ts";
import type { RoomsContext } from "../context.ts";
import type { VerifiedEvent } from "../events/verify-pdus.ts";
import { fetchAuthEvents } from "../fetch/fetch-auth-events.ts";
import { fetchForeignState } from "../fetch/fetch-foreign-state.ts";
import { notAnswered } from "../fetch/answered-gaps.ts";
import { fillGap, PARENT_ATTEMPTS } from "../fetch/fill-gap.ts";
import { reportLostEvents } from "../lost-events.ts";
import { receiveKeptPdu, receiveVerifiedEvent } from "./receive-pdu.ts";
import { missingPrevEvents } from "../fetch/missing-prev-events.ts";
import { serversForResync } from "../resync/resync-servers.ts";

/** Between two looks at the table. */
const INTERVAL_MS = 1_000;

const AT_ONCE = 50;

const ROOMS_AT_ONCE = 10;

/** A long chain may have one event after the other; then other rooms have their turn. */
const MOST_ROUNDS = 500;

/** Attempts after which other servers of the room than the sender's are asked too. */
const OTHERS_AFTER_ATTEMPTS = 2;
const MOST_OTHERS = 5;

/** Servers that a gap is asked of at a time, before its event is accepted on a state that was told. */
const MOST_ASKED_FOR_GAP = 3;

/** A join notes each server that it tries; one that has not for so long was ended by a crash. */
const JOIN_ABANDONED_AFTER_MS = 30 * 60_000;

/** The wait doubles with each attempt, up to this. */
const MOST_BACK_OFF_MS = 5 * 60_000;

/** An event whose past nobody could tell for this long is given up; later events of the room bring it back. */
const GIVE_UP_AFTER_MS = 24 * 60 * 60_000;

/** Handles the PDUs that wait for their past, until it is stopped. */
export function startReceivingWaitingPdus(ctx: RoomsContext): { stop(): Promise<void> } {
  const stopped = new AbortController();
  // Each room's requests listen to it: many are no leak.
  setMaxListeners(0, stopped.signal);
  const done = receiveUntilStopped(ctx, stopped.signal);
  return {
    stop: async () => {
      stopped.abort();
      await done;
    },
  };
}

async function receiveUntilStopped(ctx: RoomsContext, stopped: AbortSignal): Promise<void> {
  const busy = new Map<RoomId, Promise<void>>();
  while (!stopped.aborted) {
    try {
      await startDue(ctx, busy, stopped);
    } catch (error) {
      // The database may be away for a while; what waits in it waits on.
      ctx.logger.error({ err: error }, "waiting PDUs could not be handled");
    }
    await sleep(INTERVAL_MS, undefined, { signal: stopped }).catch(() => undefined);
  }
  await Promise.all(busy.values());
}

/** A room whose servers are slow holds up no other. */
async function startDue(ctx: RoomsContext, busy: Map<RoomId, Promise<void>>, stopped: AbortSignal): Promise<void> {
  for (const [roomId, waiting] of await dueByRoom(ctx, [...busy.keys()])) {
    if (busy.size >= ROOMS_AT_ONCE) return;
    const done = receiveInTurn(ctx, waiting, stopped).finally(() => busy.delete(roomId));
    busy.set(roomId, done);
  }
}

/** One round: each PDU that is due is tried again, the state at its missing prev_events fetched first. */
export async function receiveWaitingPdus(ctx: RoomsContext): Promise<void> {
  const rooms = await dueByRoom(ctx, []);
  await Promise.all([...rooms.values()].map((waiting) => receiveInTurn(ctx, waiting)));
}

async function dueByRoom(
  ctx: RoomsContext,
  exceptRooms: readonly RoomId[],
): Promise<ReadonlyMap<RoomId, readonly WaitingPdu[]>> {
  const { pool } = ctx.database;
  await forgetStaleJoins(pool, ctx.now() - JOIN_ABANDONED_AFTER_MS);
  const rooms = new Map<RoomId, WaitingPdu[]>();
  for (const waiting of await dueWaitingPdus(pool, { ...dueNow(ctx), exceptRooms })) {
    const ofRoom = rooms.get(waiting.roomId) ?? [];
    ofRoom.push(waiting);
    rooms.set(waiting.roomId, ofRoom);
  }
  return rooms;
}

function dueNow(ctx: RoomsContext): { readonly now: number; readonly limit: number; readonly longestMs: number } {
  return { now: ctx.now(), limit: AT_ONCE, longestMs: MOST_BACK_OFF_MS };
}

function isStopped(stopped: AbortSignal | undefined): boolean {
  return stopped?.aborted === true;
}

/**
 * Those of a room, and then those whose turn came by that, as long as one is handled after the other: a gap of a hundred
 * events is closed in one go. Never fails: an event that we can't handle for a fault of ours must not hold up the others.
 */
async function receiveInTurn(ctx: RoomsContext, ofRoom: readonly WaitingPdu[], stopped?: AbortSignal): Promise<void> {
  try {
    await receiveEachInTurn(ctx, ofRoom, stopped);
  } catch (error) {
    // The database is away for a while; what waits in it waits on.
    ctx.logger.error({ err: error, roomId: ofRoom[0]?.roomId }, "waiting PDUs of a room could not be handled");
  }
}

async function receiveEachInTurn(
  ctx: RoomsContext,
  ofRoom: readonly WaitingPdu[],
  stopped: AbortSignal | undefined,
): Promise<void> {
  const [first] = ofRoom;
  let due = ofRoom;
  for (let rounds = 0; rounds < MOST_ROUNDS && first !== undefined; rounds += 1) {
    let handled = 0;
    for (const waiting of due.toSorted(shallowFirst)) {
      if (isStopped(stopped)) return;
      if (await receiveOrPostpone(ctx, waiting, stopped)) handled += 1;
    }
    // The first of them may be one of a room's hundred, none of which has its turn before another's.
    if (handled === 0 && rounds > 0 && due.length < AT_ONCE) return;
    due = await dueWaitingPdus(ctx.database.pool, { ...dueNow(ctx), onlyRoom: first.roomId });
  }
}

/** Parents first, as far as depths tell the truth; what a join has kept was not read yet and keeps its order. */
function shallowFirst(one: WaitingPdu, other: WaitingPdu): number {
  const [a, b] = [one, other].map(depthOfWaiting) as [bigint, bigint];
  return a === b ? 0 : a < b ? -1 : 1;
}

function depthOfWaiting({ reason, pdu }: WaitingPdu): bigint {
  return reason === "missing-prev-events" && isJsonObject(pdu) ? depthOf(pdu as Pdu) : 0n;
}

/** Whether it waits no more. */
async function receiveOrPostpone(
  ctx: RoomsContext,
  waiting: WaitingPdu,
  stopped: AbortSignal | undefined,
): Promise<boolean> {
  try {
    return await receiveOne(ctx, waiting, stopped);
  } catch (error) {
    if (isStopped(stopped)) return false;
    const isOutage = error instanceof DatabaseUnavailable;
    if (isOutage && !error.mayBeOfStatement) throw error;
    const { roomId, eventId } = waiting;
    ctx.logger.error({ err: error, roomId, eventId }, "a waiting PDU could not be handled");
    const postponed = isOutage ? postponeForOutage(ctx, waiting) : postpone(ctx, waiting);
    await postponed.catch((failure: unknown) => {
      // It was no fault of the one statement.
      if (failure instanceof DatabaseUnavailable) throw failure;
      ctx.logger.error({ err: failure, roomId, eventId }, "a waiting PDU could not be postponed");
    });
    return false;
  }
}

async function receiveOne(ctx: RoomsContext, waiting: WaitingPdu, stopped: AbortSignal | undefined): Promise<boolean> {
  switch (waiting.reason) {
    case "missing-prev-events":
      return await receiveWaiting(ctx, waiting, stopped);
    // The join has handled what it found when it ended; this came too late for that, or a crash ended it.
    case "join-under-way":
    case "missing-keys":
      return (await receiveKeptPdu(ctx, waiting)) || (await postpone(ctx, waiting));
  }
}

async function receiveWaiting(
  ctx: RoomsContext,
  waiting: WaitingPdu,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { pool } = ctx.database;
  const { roomId } = waiting;
  const hopeful = await stillWanted(ctx, waiting);
  if (hopeful === undefined) {
    await deleteWaitingPdu(pool, waiting.eventId);
    return true;
  }
  const { event, rules, origin } = hopeful;
  // Its turn comes when its parent's has come; but one that nobody helps must not stop the room.
  if (await isBehindParent(ctx, waiting, event)) return false;
  await askAnotherForGap(ctx, waiting, hopeful);
  if (await isBehindParent(ctx, waiting, event)) return false;
  const missing = await missingPrevEvents(ctx, event);
  const servers = await serversToAsk(ctx, waiting, event);
  for (const id of missing) await fetchPast(ctx, { roomId, rules, eventId: id, servers, ...(signal && { signal }) });
  // Its sender was asked for them when it came, and may be hiding them.
  await fetchAuthEvents(ctx, { event, rules, servers });
  const result = await receiveVerifiedEvent(ctx, { origin, rules, event });
  if (result.kind !== "stored") return await postpone(ctx, waiting);
  return true;
}

/**
 * A child has failed as often as its parents have: once they are left to themselves, it is not held up for long. But
 * what came with a gap, which may have been made up by the hundred, never goes ahead of its parents.
 */
async function isBehindParent(ctx: RoomsContext, waiting: WaitingPdu, event: Event): Promise<boolean> {
  const { eventId, fromGap } = waiting;
  const ofParents = await fewestAttempts(ctx.database.pool, await missingPrevEvents(ctx, event));
  if (ofParents === undefined || (ofParents >= PARENT_ATTEMPTS && !fromGap)) return false;
  const attempts = Math.max(ofParents, waiting.attempts);
  // A parent that comes wakes it.
  const retryAt = ctx.now() + (fromGap ? MOST_BACK_OFF_MS : backOffMs(attempts));
  await postponeWaitingPdu(ctx.database.pool, eventId, { attempts, retryAt });
  return true;
}

/** The events themselves are worth more than the state behind them: before that, another server is asked for them. */
async function askAnotherForGap(ctx: RoomsContext, waiting: WaitingPdu, received: VerifiedEvent): Promise<void> {
  const { event, rules } = received;
  const missing = await missingPrevEvents(ctx, event);
  if (missing.length === 0) return;
  const near = await serversToAsk(ctx, waiting, event);
  const further = await serversForResync(ctx, event);
  const servers = [...new Set([...near, ...further])].filter(
    (server) => server !== ctx.serverName && server !== "" && notAnswered(ctx, server, missing).length > 0,
  );
  // The next time others: the first ones may be gone for good.
  const from = waiting.attempts * MOST_ASKED_FOR_GAP < servers.length ? waiting.attempts * MOST_ASKED_FOR_GAP : 0;
  for (const server of servers.slice(from, from + MOST_ASKED_FOR_GAP)) {
    try {
      await fillGap(ctx, { origin: server, rules, event, missing });
      return;
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ err: error, eventId: event.eventId }, "a server could not be asked for a gap");
    }
  }
}

/** Undefined for an event that is given up: its room was left, or nobody could tell its past for too long. */
async function stillWanted(ctx: RoomsContext, waiting: WaitingPdu): Promise<VerifiedEvent | undefined> {
  const { pool } = ctx.database;
  const { roomId, eventId, origin } = waiting;
  const rules = await roomRules(pool, roomId);
  const verdict = rules === undefined ? undefined : parsePdu(waiting.pdu, rules);
  const weAreIn = (await localJoinedUsers(pool, roomId, ctx.serverName)).length > 0;
  if (rules === undefined || verdict?.ok !== true || !weAreIn) {
    ctx.logger.info({ roomId, eventId }, "a waiting PDU is of no use any more: its room was left");
    return undefined;
  }
  if (ctx.now() - waiting.receivedAt <= GIVE_UP_AFTER_MS) return { origin, rules, event: verdict.event };
  const reason = "nobody could tell what it builds on for a day";
  reportLostEvents(ctx, { loss: "past-unknown", roomId, eventIds: [eventId], reason });
  return undefined;
}

/**
 * The sender and whoever made the event know its past; after them, others of the room. While the room is partial, the
 * server that we joined by comes first: what is told here may be what the resync builds on, and whoever pushes an event
 * must not choose that.
 */
async function serversToAsk(ctx: RoomsContext, waiting: WaitingPdu, event: Event): Promise<readonly ServerName[]> {
  const { roomId, origin, attempts } = waiting;
  const near = [origin, serverNameOf(event.pdu.sender) ?? ""];
  const inRoom = await serversForResync(ctx, { roomId });
  const partial = await partialRoom(ctx.database.pool, roomId);
  const first = partial === undefined ? [] : inRoom.slice(0, 1);
  const others = attempts < OTHERS_AFTER_ATTEMPTS ? [] : othersInTurn(inRoom, attempts - OTHERS_AFTER_ATTEMPTS);
  return [...new Set([...first, ...near, ...others])];
}

/** A few with each attempt, so that each server's turn comes. */
function othersInTurn(servers: readonly ServerName[], turn: number): readonly ServerName[] {
  const start = (turn * MOST_OTHERS) % Math.max(1, servers.length);
  return [...servers.slice(start), ...servers.slice(0, start)].slice(0, MOST_OTHERS);
}

interface Past {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  readonly eventId: EventId;
  readonly servers: readonly ServerName[];
  readonly signal?: AbortSignal;
}

/** Fetches the state at a missing prev_event from the first server that has it. */
async function fetchPast(ctx: RoomsContext, { servers, ...past }: Past): Promise<void> {
  for (const server of servers) {
    if (server === ctx.serverName || server === "") continue;
    try {
      if ((await fetchForeignState(ctx, { ...past, server })).kind === "complete") return;
    } catch (error) {
      if (!(error instanceof FederationFailure)) throw error;
      ctx.logger.info({ err: error, eventId: past.eventId }, "the state at a missing prev_event could not be fetched");
    }
  }
}

/** False: it waits on. */
async function postpone(ctx: RoomsContext, { eventId, attempts }: WaitingPdu): Promise<false> {
  const retryAt = ctx.now() + backOffMs(attempts);
  await postponeWaitingPdu(ctx.database.pool, eventId, { attempts: attempts + 1, retryAt });
  return false;
}

/** For as long again as it has waited: what the database lacks is no attempt that the event's servers have failed. */
async function postponeForOutage(ctx: RoomsContext, { eventId, attempts, receivedAt }: WaitingPdu): Promise<void> {
  const now = ctx.now();
  const wait = Math.min(MOST_BACK_OFF_MS, Math.max(INTERVAL_MS, now - receivedAt));
  await postponeWaitingPdu(ctx.database.pool, eventId, { attempts, retryAt: now + wait });
}

function backOffMs(attempts: number): number {
  return Math.min(MOST_BACK_OFF_MS, INTERVAL_MS * 2 ** Math.min(attempts, 20));
}
