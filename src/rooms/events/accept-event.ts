import { authEventIds, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import { splitStateKey, type StateKey } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, insertTimelineEvent, loadEvent, loadEvents, type StoredEvent } from "../../storage/events.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { addToOutbox } from "../../storage/outbox.ts";
import { noteOwnEventDestinations } from "../../storage/own-event-destinations.ts";
import { markPartial, partialEventIds, partialRoom } from "../../storage/partial-state.ts";
import {
  hasAcceptedDescendant,
  partialDescendantsAmong,
  supersededBy,
  timelineDescendantsAmong,
} from "../../storage/room-graph.ts";
import { forwardExtremities, lockRoom, setForwardExtremities, type RoomRow } from "../../storage/rooms.ts";
import { loadState, lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import { takeStreamPositions } from "../../storage/streams.ts";
import { rejectionText } from "./authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { foreignStateAfter, ForeignStateUnusable } from "../fetch/foreign-state.ts";
import { serversOfRoom } from "../send/room-destinations.ts";
import { judgeByState, judgeEvent } from "./judge-event.ts";
import {
  stateAfterEvent,
  stateBeforeEvent,
  type ForeignState,
  type StateSource,
  type StoredState,
} from "./state-before-event.ts";
import { newsForClients } from "./news-for-clients.ts";
import { applyCurrentState, computeCurrentState, type CurrentStateChange } from "./update-current-state.ts";

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

interface EventToAccept {
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
  const { event } = input;
  const room = await lockRoom(tx, event.roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined) throw new RoomUnknown(event.roomId);
  const existing = await loadEvent(tx, event.eventId);
  if (existing !== undefined && !existing.outlier) return existing;

  const full: StateSource = { database: ctx.database, tx, roomId: event.roomId, rules };
  const isPartial = (await partialRoom(tx, event.roomId)) !== undefined;
  const source = isPartial ? { ...full, partialFor: ctx.serverName } : full;
  const past = await pastOf(source, input);
  const refusal =
    (await secondCreation(tx, room, event)) ??
    rejectionText(await judgeEvent({ ...source, event }, { ...past.before, partial: past.partial }));
  const softFailed = refusal === null && (await failsCurrentState(source, event, { room, past }));
  const stored = await placeEvent(ctx, source, { ...input, room, past, refusal, softFailed });
  await input.also?.(tx, stored);
  return stored;
}

interface JudgedEvent extends EventToAccept {
  readonly room: RoomRow;
  readonly past: Past;
  readonly refusal: string | null;
  readonly softFailed: boolean;
}

/** Stores the event with its states, and moves the room on to where it now stands. */
async function placeEvent(ctx: RoomsContext, source: StateSource, judged: JudgedEvent): Promise<StoredEvent> {
  const { tx, roomId } = source;
  const { past, refusal, softFailed } = judged;
  const event: Event = { ...judged.event, rejected: refusal !== null };
  const after = await stateAfterEvent(source, past.before, event);
  const accepted = refusal === null && !softFailed;
  const advance = await advanceRoom(ctx, source, judged, { event, accepted, after });
  // Who was in the room before is told too: a kick takes its target's server out of the room. Only ours are sent.
  const isOurs = accepted && judged.origin === ctx.serverName;
  const movesMembers = [...(advance?.change.changes.keys() ?? [])].some(isMemberKey);
  const serversBefore = isOurs && movesMembers ? await joinedServers(tx, roomId) : [];

  const streamId = await takeStreamPositions(tx, 1);
  const place = {
    rejection: refusal,
    softFailed,
    stateBefore: past.before.snapshotId,
    stateAfter: after.snapshotId,
    streamId,
  };
  await insertTimelineEvent(tx, { event, ...place });
  if (past.partial) await markPartial(tx, roomId, event.eventId);
  if (advance !== undefined) {
    await setForwardExtremities(tx, roomId, advance.extremities);
    await applyCurrentState(ctx, source, advance.change, { streamId, told: advance.told });
  }
  if (isOurs) {
    const servers = await destinationsOf(ctx, source, serversBefore);
    await addToOutbox(tx, { eventId: event.eventId, streamId, destinations: servers });
    await noteOwnEventDestinations(tx, roomId, { eventId: event.eventId, streamId, servers });
  }
  return { ...event, ...place, outlier: false };
}

function isMemberKey(key: StateKey): boolean {
  return splitStateKey(key)[0] === "m.room.member";
}

interface Advance {
  readonly extremities: readonly EventId[];
  readonly change: CurrentStateChange;
  /** What clients are told of the change. */
  readonly told: CurrentStateChange["changes"];
}

interface PlacedEvent {
  readonly event: Event;
  readonly accepted: boolean;
  readonly after: StoredState;
}

/** Undefined where the event leaves the room as it was, as a refused one mostly does. */
async function advanceRoom(
  ctx: RoomsContext,
  source: StateSource,
  { room }: JudgedEvent,
  placed: PlacedEvent,
): Promise<Advance | undefined> {
  const extremities = await extremitiesWith(source.tx, placed);
  if (extremities === undefined) return undefined;
  const states = await statesAfter(source, extremities, placed);
  const change = await computeCurrentState(source, room.currentSnapshotId, states, [placed.event]);
  return { extremities, change, told: await toldOf(ctx, source, change, placed.event) };
}

/** In a partial room, a concurrent event's full state may bring thousands of members that were merely unknown. */
async function toldOf(
  ctx: RoomsContext,
  source: StateSource,
  change: CurrentStateChange,
  { eventId }: Event,
): Promise<CurrentStateChange["changes"]> {
  if (source.partialFor === undefined) return change.changes;
  const own = [...change.changes].filter(([, changedTo]) => changedTo === eventId);
  return new Map([...(await newsForClients(ctx, source, change)), ...own]);
}

interface Past {
  readonly before: StoredState;
  /** A known prev_event is partial, so that the state before this event is. */
  readonly partial: boolean;
}

async function pastOf(source: StateSource, input: EventToAccept): Promise<Past> {
  const { event, foreign = [] } = input;
  const ids = prevEventIds(event.pdu);
  await requireAcyclic(source, event);
  const known = await loadEvents(source.tx, ids);
  const told = new Set(foreign.map((one) => one.eventId));
  const prevEvents = ids.flatMap((id) => {
    const prev = known.get(id);
    return hasState(prev, event.roomId) ? [prev] : [];
  });
  const placed = new Set(prevEvents.map((prev) => prev.eventId));
  const given = foreign.filter((one) => !placed.has(one.eventId));
  const others = await toldStates(
    source,
    ids.filter((id) => !placed.has(id) && !told.has(id)),
  );
  const byForeign = given.length > 0 && input.foreignIsPartial === true;
  const partial = byForeign || (await partialEventIds(source.tx, [...placed])).size > 0;
  // The state before an event that is not partial is final, so that nothing in it may be a guess.
  const { partialFor: _us, ...exactly } = source;
  const before = await stateBeforeEvent(partial ? source : exactly, prevEvents, [...given, ...others]);
  return { before, partial };
}

/**
 * The event that closes a ring has a past that nobody can ever tell. Events that build on each other in a ring would all
 * be superseded, so that the room had no forward extremity left; partial ones that build on or authorize each other could
 * never be repaired, each of them behind the others.
 */
async function requireAcyclic({ tx, rules, partialFor }: StateSource, event: Event): Promise<void> {
  if (rules.eventIdFormat !== "chosen-by-sender") return;
  const prev = prevEventIds(event.pdu);
  const ring = await timelineDescendantsAmong(tx, prev, event);
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
async function secondCreation(
  tx: Connection,
  { currentSnapshotId }: RoomRow,
  { eventId, pdu }: Event,
): Promise<string | null> {
  if (currentSnapshotId === null || pdu.type !== "m.room.create" || pdu.state_key !== "") return null;
  const first = await lookUpInSnapshot(tx, currentSnapshotId, "m.room.create", "");
  return first === eventId ? null : "create.not-first: the room has a create event already";
}

/** Check 6, which is put off until a partial room's state is full (`replay-arrivals.ts`): most members are lacking. */
async function failsCurrentState(
  source: StateSource,
  event: Event,
  { room, past }: { readonly room: RoomRow; readonly past: Past },
): Promise<boolean> {
  const { currentSnapshotId: snapshotId } = room;
  if (snapshotId === null || source.partialFor !== undefined) return false;
  // Check 5 was this very check.
  if (snapshotId === past.before.snapshotId) return false;
  const current = await loadState(source.database, snapshotId, source.tx);
  return !(await judgeByState({ ...source, event }, current)).allowed;
}

/**
 * The extremities with the new event, which may have arrived after one that builds on it (a filled gap). Undefined where
 * they stay as they are. `src/matrix/forward-extremities.ts` is the same for many arrivals at once.
 */
async function extremitiesWith(
  tx: Connection,
  { event, accepted }: PlacedEvent,
): Promise<readonly EventId[] | undefined> {
  const { roomId, eventId } = event;
  const builtUpon = await hasAcceptedDescendant(tx, roomId, eventId);
  if (!accepted && !builtUpon) return undefined;
  const superseded = await supersededBy(tx, roomId, prevEventIds(event.pdu));
  const current = await forwardExtremities(tx, roomId);
  const rest = current.filter((id) => !superseded.has(id));
  if (!builtUpon) return [...rest, eventId];
  return rest.length === current.length ? undefined : rest;
}

async function statesAfter(
  source: StateSource,
  extremities: readonly EventId[],
  { event, after }: PlacedEvent,
): Promise<readonly StoredState[]> {
  const others = await loadEvents(
    source.tx,
    extremities.filter((id) => id !== event.eventId),
  );
  const states: StoredState[] = extremities.includes(event.eventId) ? [after] : [];
  for (const snapshotId of new Set([...others.values()].map((one) => one.stateAfter))) {
    if (snapshotId === null || states.some((one) => one.snapshotId === snapshotId)) continue;
    states.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  return states;
}

/** Our own events go to every server of the room; while it is partial, also to those that the join named. */
async function destinationsOf(
  ctx: RoomsContext,
  { tx, roomId }: StateSource,
  serversBefore: readonly ServerName[],
): Promise<readonly ServerName[]> {
  const servers = new Set([...serversBefore, ...(await serversOfRoom(tx, ctx, roomId))]);
  servers.delete(ctx.serverName);
  return [...servers];
}
