import { authEventIds, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, type StoredEvent } from "../../storage/events.ts";
import { partialDescendantsAmong, timelineDescendantsAmong } from "../../storage/room-graph.ts";
import { loadState, lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { foreignStateAfter, ForeignStateUnusable } from "./foreign-state.ts";
import { advanceRoom } from "./advance-room.ts";
import { rejectionText } from "./authorize-outliers.ts";
import { eventToPlace } from "./event-to-place.ts";
import { eventsOf } from "./events-at-hand.ts";
import { inputsAtOnce } from "./inputs-at-once.ts";
import { AuthEventsMissing, judgeByState, judgeEvent } from "./judge-event.ts";
import {
  canFollow,
  isJudgedByStatesAtHand,
  isPlain,
  openFreeTurns,
  openTurn,
  stateBehindInTurn,
  type RoomTurn,
} from "./room-turn.ts";
import { stateAfterEvent, type ForeignState, type StateSource, type StoredState } from "./state-before-event.ts";
import { writeTurns } from "./write-turns.ts";

/** A prev_event is neither in a timeline of ours nor was its state given: the event can't be accepted yet. */
export class PrevEventsMissing extends Error {
  readonly eventIds: readonly EventId[];

  constructor(eventIds: readonly EventId[]) {
    super(`prev_events are missing: ${eventIds.join(", ")}`);
    this.name = "PrevEventsMissing";
    this.eventIds = eventIds;
  }
}

class RoomUnknown extends Error {
  constructor(roomId: RoomId) {
    super(`room ${roomId} is not known here`);
    this.name = "RoomUnknown";
  }
}

export interface EventToAccept {
  /** Passed checks 1 to 3. */
  readonly event: Event;
  /** Where it came from: ourselves for an event of ours, whose refusal its maker is told. */
  readonly origin: ServerName;
  /** The states after prev_events that are in no timeline of ours. */
  readonly foreign?: readonly ForeignState[];
  /** Those states lack members, so that this event is partial. */
  readonly foreignIsPartial?: boolean;
  /** What must happen in the same transaction, after the event is stored. */
  readonly also?: (tx: Connection, stored: StoredEvent) => Promise<void>;
}

/**
 * Checks 4 to 6 of an event whose past is known, and its place in the room: state before and after, forward
 * extremities, current state, streams, outbox; all in one transaction under the room's lock. An event that is already
 * in the timeline is returned as it is.
 *
 * A refused event is stored with its refusal; the caller reads `rejection` and `softFailed` of the result.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 * @throws PrevEventsMissing, AuthEventsMissing, RoomUnknown
 */
export async function acceptEvent(ctx: RoomsContext, input: EventToAccept): Promise<StoredEvent> {
  return await commit(ctx, "accept an event", (tx) => acceptEventWithin(ctx, tx, input));
}

/** The same as part of a transaction of the caller's. */
export async function acceptEventWithin(ctx: RoomsContext, tx: Connection, input: EventToAccept): Promise<StoredEvent> {
  return await acceptInTurn(ctx, await turnFor(ctx, tx, [input.event]), input);
}

async function turnFor(ctx: RoomsContext, tx: Connection, events: readonly Event[]): Promise<RoomTurn> {
  const roomId = events[0]?.roomId ?? "!";
  const turn = await openTurn(ctx, tx, roomId, events);
  if (turn === undefined) throw new RoomUnknown(roomId);
  return turn;
}

/** The same where the room is locked already; the event is the only one of its turn. */
export async function acceptInTurn(ctx: RoomsContext, turn: RoomTurn, input: EventToAccept): Promise<StoredEvent> {
  const { tx, atHand } = turn.source;
  const known = placedBefore(turn, input.event);
  if (known !== undefined) return known;
  await placeEvent(turn, input);
  await writeTurns(ctx, tx, [turn]);
  const stored = atHand.known.get(input.event.eventId);
  if (stored === undefined) throw new Error(`event ${input.event.eventId} was not placed`);
  await input.also?.(tx, stored);
  return stored;
}

/**
 * Events of one room in their order, as many as can be placed in one transaction: up to the first whose past is not
 * known, or that must begin a transaction of its own (`canFollow`). Each is judged as if it had come alone.
 *
 * @returns those that are in the timeline now, at least the first
 * @throws PrevEventsMissing, AuthEventsMissing for the first, RoomUnknown
 */
export async function acceptEvents(
  ctx: RoomsContext,
  received: readonly Pick<EventToAccept, "event" | "origin">[],
): Promise<readonly StoredEvent[]> {
  const inputs = inputsAtOnce(received);
  const events = inputs.map(({ event }) => event);
  return await commit(ctx, "accept an event", async (tx) => {
    const turn = await turnFor(ctx, tx, events);
    const taken: EventId[] = [];
    for (const input of inputs) {
      if (placedBefore(turn, input.event) === undefined) {
        if (!canFollow(turn, input.event)) break;
        const hole = await holeOrPlaced(turn, input);
        if (hole !== undefined && taken.length === 0) throw hole;
        if (hole !== undefined) break;
      }
      taken.push(input.event.eventId);
    }
    await writeTurns(ctx, tx, [turn]);
    return taken.flatMap((id) => turn.source.atHand.known.get(id) ?? []);
  });
}

/**
 * The same for events of several rooms, in one transaction: of each room as many as follow from what is known of it, and
 * none of a room that somebody else has locked, or whose state must be read first: all of them stay locked meanwhile.
 *
 * @returns those that are in the timeline now
 */
export async function acceptPlainEvents(
  ctx: RoomsContext,
  received: readonly Pick<EventToAccept, "event" | "origin">[],
): Promise<readonly StoredEvent[]> {
  const inputs = inputsAtOnce(received);
  const events = inputs.map(({ event }) => event);
  return await commit(ctx, "accept an event", async (tx) => {
    const turns = await openFreeTurns(ctx, tx, events);
    const taken: EventId[] = [];
    for (const turn of turns) {
      for (const input of inputs) {
        if (input.event.roomId !== turn.source.roomId || placedBefore(turn, input.event) !== undefined) continue;
        if (!isPlain(turn, input.event) || !isJudgedByStatesAtHand(turn, input.event)) break;
        if ((await holeOrPlaced(turn, input)) !== undefined) break;
        taken.push(input.event.eventId);
      }
    }
    await writeTurns(ctx, tx, turns);
    const [turn] = turns;
    return taken.flatMap((id) => turn?.source.atHand.known.get(id) ?? []);
  });
}

/** The hole in an event's past, before which the turn ends; undefined for an event that was placed. */
async function holeOrPlaced(
  turn: RoomTurn,
  input: EventToAccept,
): Promise<PrevEventsMissing | AuthEventsMissing | undefined> {
  try {
    await placeEvent(turn, input);
    return undefined;
  } catch (error) {
    if (error instanceof PrevEventsMissing || error instanceof AuthEventsMissing) return error;
    throw error;
  }
}

/** The event, if it is in the timeline already: nothing is to be done then. */
function placedBefore({ source }: RoomTurn, { eventId }: Event): StoredEvent | undefined {
  const existing = source.atHand.known.get(eventId);
  return existing?.outlier === false ? existing : undefined;
}

/** Judges an event and gives it its place, which is written at the end of the turn. */
async function placeEvent(turn: RoomTurn, input: EventToAccept): Promise<void> {
  const { source } = turn;
  const { origin } = input;
  const { eventId } = input.event;
  const event = eventToPlace(source.rules, source.atHand.known.get(eventId), input.event);
  // It waits in vain, like one that closes a ring.
  if (event === undefined) throw new PrevEventsMissing([eventId]);
  const { before, partial } = await pastOf(turn, { ...input, event });
  const rejection =
    (await secondCreation(turn, event)) ??
    rejectionText(await judgeEvent({ ...source, event }, { ...before, partial }));
  const softFailed = rejection === null && (await failsCurrentState(turn, event, before));
  const judged: Event = { ...event, rejected: rejection !== null };
  const after = await stateAfterEvent(source, before, judged);
  const verdict = { rejection, softFailed, stateBefore: before.snapshotId, stateAfter: after.snapshotId };
  const placed: StoredEvent = { ...judged, ...verdict, outlier: false, streamId: null };
  source.atHand.known.set(event.eventId, placed);
  source.atHand.unwritten.add(event.eventId);
  if (partial) turn.partialIds.add(event.eventId);
  turn.placed.push({ event: placed, origin, partial, change: await advanceRoom(turn, { event: placed, after }) });
  for (const id of prevEventIds(event.pdu)) turn.builtUpon.add(id);
}

async function pastOf(turn: RoomTurn, input: EventToAccept): ReturnType<typeof stateBehindInTurn> {
  const { source } = turn;
  const { event, foreign = [] } = input;
  const ids = prevEventIds(event.pdu);
  await requireAcyclic(turn, event);
  const known = await eventsOf(source, ids);
  const toldIds = new Set(foreign.map((one) => one.eventId));
  const prevEvents = ids.flatMap((id) => {
    const prev = known.get(id);
    return hasState(prev, event.roomId) ? [prev] : [];
  });
  const placed = new Set(prevEvents.map((prev) => prev.eventId));
  const given = foreign.filter((one) => !placed.has(one.eventId));
  const others = await toldStates(
    source,
    ids.filter((id) => !placed.has(id) && !toldIds.has(id)),
  );
  const byForeign = given.length > 0 && input.foreignIsPartial === true;
  const told = { states: [...given, ...others], partial: byForeign };
  return await stateBehindInTurn(turn, prevEvents, { ...event.pdu, foreign: told });
}

/**
 * The event that closes a ring has a past that nobody can ever tell. Events that build on each other in a ring would all
 * be superseded, so that the room had no forward extremity left; partial ones that build on or authorize each other could
 * never be repaired, each of them behind the others.
 */
async function requireAcyclic({ source, builtUpon }: RoomTurn, event: Event): Promise<void> {
  const { tx, rules, partialFor } = source;
  if (rules.eventIdFormat !== "chosen-by-sender") return;
  const prev = prevEventIds(event.pdu);
  const ring = builtUpon.has(event.eventId) ? await timelineDescendantsAmong(tx, prev, event) : new Set<EventId>();
  const partial =
    partialFor === undefined
      ? new Set<EventId>()
      : await partialDescendantsAmong(tx, [...prev, ...authEventIds(event.pdu)], event);
  if (ring.size + partial.size > 0) throw new PrevEventsMissing([...ring, ...partial]);
}

/** What other servers told of the states at prev_events that are in no timeline of ours. */
async function toldStates(source: StateSource, ids: readonly EventId[]): Promise<readonly ForeignState[]> {
  const states: ForeignState[] = [];
  const missing: EventId[] = [];
  for (const id of ids) {
    try {
      states.push(await foreignStateAfter(source, id));
    } catch (error) {
      if (!(error instanceof ForeignStateUnusable)) throw error;
      missing.push(id);
    }
  }
  if (missing.length > 0) throw new PrevEventsMissing(missing);
  return states;
}

/** By the auth rules alone the server that made a room could make it again, with other creators. */
async function secondCreation({ front, source }: RoomTurn, { eventId, pdu }: Event): Promise<string | null> {
  const { currentSnapshotId } = front;
  if (currentSnapshotId === null || pdu.type !== "m.room.create" || pdu.state_key !== "") return null;
  const first = await lookUpInSnapshot(source.tx, currentSnapshotId, "m.room.create", "");
  return first === eventId ? null : "create.not-first: the room has a create event already";
}

/** Check 6, which is put off until a partial room's state is full (`replay-arrivals.ts`): most members are lacking. */
async function failsCurrentState({ front, source }: RoomTurn, event: Event, before: StoredState): Promise<boolean> {
  const { currentSnapshotId: snapshotId } = front;
  if (snapshotId === null || source.partialFor !== undefined) return false;
  // Check 5 was this very check.
  if (snapshotId === before.snapshotId) return false;
  const current = await loadState(source.database, snapshotId, source.tx);
  return !(await judgeByState({ ...source, event }, current)).allowed;
}
