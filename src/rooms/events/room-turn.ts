import { authTypesFor } from "../../matrix/authorization/auth-types.ts";
import { isStateEvent, prevEventIds, type Event, type Pdu } from "../../matrix/event.ts";
import { serverNameOf, type EventId, type RoomId, type ServerName } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import { stateFromEntries, type StateMap } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, type StoredEvent } from "../../storage/events.ts";
import { loadEventsAndStanding, roomFronts, whichAreBuiltUpon } from "../../storage/room-graph.ts";
import { lockFreeRooms, lockRoom, type RoomRow } from "../../storage/rooms.ts";
import { loadState, loadStateIfSmall, lookUpManyInSnapshot, stateAtHand } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { authEventIdsWithCreate } from "./authorize-outliers.ts";
import type { EventsAtHand } from "./events-at-hand.ts";
import { stateBeforeEvent, type ForeignState, type StateSource, type StoredState } from "./state-before-event.ts";
import type { CurrentStateChange } from "./update-current-state.ts";

/**
 * A room under its lock, while events are placed in it one behind the other in one transaction: each is judged by what
 * those before it have made of the room, and all of them are written together at the end (`write-turns.ts`), so that
 * fifty events take hardly more statements than one, and a place in the streams is taken for a moment only.
 */
export interface RoomTurn {
  readonly source: StateSource & {
    readonly atHand: EventsAtHand & { readonly unwritten: Set<EventId> };
    readonly ourServer: ServerName;
  };
  /** Of the events at hand those that are known on partial state only. */
  readonly partialIds: Set<EventId>;
  /**
   * Those of the events to be placed that events of the timeline build on, and whatever those placed in this turn build
   * on: such an event fills a gap, or closes a ring.
   */
  readonly builtUpon: Set<EventId>;
  /** What the room's row said of its current state when the turn began. */
  readonly opening: Pick<RoomRow, "currentSnapshotId" | "resolvedOf">;
  /** Where the room stands after what was placed. */
  readonly front: TurnFront;
  readonly placed: PlacedEvent[];
  /** What messages of ours were judged by, of states too large to be read while their senders wait. */
  readonly excerpts: Map<string, StateMap>;
}

interface TurnFront {
  extremities: readonly EventId[];
  moved: boolean;
  currentSnapshotId: bigint | null;
  /** The states after the extremities of which the current state is known to be the resolution, by {@link statesKey}. */
  resolvedOf: string | undefined;
}

/** An event with its place in the room, to be written at the end of the turn. */
export interface PlacedEvent {
  /** Its position is not taken yet. */
  readonly event: StoredEvent;
  readonly origin: ServerName;
  readonly partial: boolean;
  /** What it made of the room's current state; undefined: nothing. */
  readonly change: CurrentStateChange | undefined;
}

/**
 * Locks the room, and reads what the placing of these events asks for, all of them its own. Undefined for a room that is
 * not known here.
 */
export async function openTurn(
  ctx: RoomsContext,
  tx: Connection,
  roomId: RoomId,
  events: readonly Event[],
): Promise<RoomTurn | undefined> {
  const room = await lockRoom(tx, roomId);
  return room === undefined ? undefined : (await turnsIn(ctx, tx, { rooms: [room], events }))[0];
}

/** The same for events of several rooms, those of them that nobody else has locked. */
export async function openFreeTurns(
  ctx: RoomsContext,
  tx: Connection,
  events: readonly Event[],
): Promise<readonly RoomTurn[]> {
  const rooms = await lockFreeRooms(tx, [...new Set(events.map(({ roomId }) => roomId))]);
  const locked = new Set(rooms.map(({ roomId }) => roomId));
  return await turnsIn(ctx, tx, { rooms, events: events.filter(({ roomId }) => locked.has(roomId)) });
}

interface LockedRooms {
  readonly rooms: readonly RoomRow[];
  readonly events: readonly Event[];
}

async function turnsIn(
  ctx: RoomsContext,
  tx: Connection,
  { rooms, events }: LockedRooms,
): Promise<readonly RoomTurn[]> {
  const fronts = await roomFronts(
    tx,
    rooms.map(({ roomId }) => roomId),
  );
  const frontOf = new Map(fronts.map((front) => [front.roomId, front]));
  const rulesOfRoom = new Map(rooms.map(({ roomId, roomVersion }) => [roomId, rulesOf(roomVersion)]));
  const ids = new Set(fronts.flatMap(({ extremities }) => extremities));
  for (const event of events) {
    const rules = rulesOfRoom.get(event.roomId);
    const authIds = rules === undefined ? [] : authEventIdsWithCreate(event, rules);
    for (const id of [event.eventId, ...prevEventIds(event.pdu), ...authIds]) ids.add(id);
  }
  const { events: known, partial: partialIds } = await loadEventsAndStanding(tx, [...ids]);
  const builtUpon = events.length === 0 ? new Set<EventId>() : await whichAreBuiltUpon(tx, events);
  return rooms.flatMap(({ roomId, currentSnapshotId, resolvedOf }) => {
    const [rules, room] = [rulesOfRoom.get(roomId), frontOf.get(roomId)];
    if (rules === undefined || room === undefined) return [];
    const front = { extremities: room.extremities, moved: false, currentSnapshotId, resolvedOf: undefined };
    const atHand = { known, unwritten: new Set<EventId>() };
    const partialFor = room.partial ? { partialFor: ctx.serverName } : {};
    const source = { database: ctx.database, tx, roomId, rules, atHand, ourServer: ctx.serverName, ...partialFor };
    const opening = { currentSnapshotId, resolvedOf };
    return [
      withResolved({
        source,
        partialIds,
        builtUpon: new Set(builtUpon),
        opening,
        front,
        placed: [],
        excerpts: new Map(),
      }),
    ];
  });
}

/** Of partial states a repair may have replaced some since. */
function withResolved(turn: RoomTurn): RoomTurn {
  const { front, source, opening } = turn;
  front.resolvedOf = source.partialFor === undefined ? resolvedByNow(turn) : (opening.resolvedOf ?? undefined);
  return turn;
}

/** A room that was joined anew has the join alone as its extremity, whatever its state was before. */
function resolvedByNow({ front, source }: RoomTurn): string | undefined {
  const states = statesOf(source.atHand, front.extremities);
  if (states.size === 0 || (states.size === 1 && !states.has(front.currentSnapshotId ?? -1n))) return undefined;
  return statesKey(states);
}

/** The snapshots after events at hand; none of those that were abandoned partial. */
export function statesOf({ known }: EventsAtHand, ids: readonly EventId[]): Set<bigint> {
  return new Set(
    ids.flatMap((id) => {
      const snapshotId = known.get(id)?.stateAfter ?? null;
      return snapshotId === null ? [] : [snapshotId];
    }),
  );
}

export function statesKey(snapshotIds: ReadonlySet<bigint>): string {
  return [...snapshotIds].toSorted((a, b) => (a < b ? -1 : 1)).join(" ");
}

/**
 * Whether the event can be placed behind those of this turn that are not written yet. What asks the database about the
 * room's graph, its members or its auth chains can't: that must be the first event of a turn.
 */
export function canFollow(turn: RoomTurn, event: Event): boolean {
  return turn.placed.length === 0 || isPlain(turn, event);
}

/** Whether all that the event's place depends on is at hand. */
export function isPlain(turn: RoomTurn, event: Event): boolean {
  const { rules, partialFor, atHand, roomId } = turn.source;
  if (turn.builtUpon.has(event.eventId) || event.pdu.type === "m.room.create") return false;
  if (partialFor !== undefined && rules.eventIdFormat === "chosen-by-sender") return false;
  const prevIds = prevEventIds(event.pdu);
  const prevEvents = prevIds.map((id) => atHand.known.get(id));
  if (!prevEvents.every((prev) => hasState(prev, roomId) && prev.rejection === null && !prev.softFailed)) return false;
  const states = statesOf(atHand, prevIds);
  return (states.size === 1 || areResolved(turn, states)) && staysResolved(turn, event, prevIds);
}

/** Whether the states by which a plain event is judged need not be read first. */
export function isJudgedByStatesAtHand(turn: RoomTurn, { pdu }: Event): boolean {
  const { source, front } = turn;
  const behind = statesOf(source.atHand, prevEventIds(pdu));
  const needed = new Set(areResolved(turn, behind) ? [] : behind);
  if (front.currentSnapshotId !== null) needed.add(front.currentSnapshotId);
  return [...needed].every((id) => stateAtHand(source.database, id, source.tx) !== undefined);
}

/** Whether the room's current state is what these states come to, exactly. */
function areResolved({ front, source }: RoomTurn, states: ReadonlySet<bigint>): boolean {
  return source.partialFor === undefined && states.size > 0 && statesKey(states) === front.resolvedOf;
}

export interface Behind {
  readonly before: StoredState;
  /** A prev_event is known on partial state only, so that the state behind it is. */
  readonly partial: boolean;
}

/** What is placed behind prev_events: the states behind others of them were told. */
interface Placing extends Pick<Pdu, "sender" | "type" | "state_key"> {
  readonly foreign?: { readonly states: readonly ForeignState[]; readonly partial: boolean };
}

/** The state behind prev_events that are at hand, and others whose states were told. */
export async function stateBehindInTurn(
  turn: RoomTurn,
  prevEvents: readonly StoredEvent[],
  placing: Placing,
): Promise<Behind> {
  const { source, front, partialIds } = turn;
  const { foreign = { states: [], partial: false } } = placing;
  const ids = prevEvents.map(({ eventId }) => eventId);
  const only = foreign.states.length === 0 ? onlyState(turn, ids) : undefined;
  if (only !== undefined && isJudgedByCurrentState(turn, only, placing)) {
    const state = await stateToJudgeBy(turn, front.currentSnapshotId ?? 0n, placing);
    return { before: { snapshotId: only, state }, partial: ids.some((id) => partialIds.has(id)) };
  }
  if (foreign.states.length === 0 && areResolved(turn, statesOf(source.atHand, ids))) {
    const snapshotId = front.currentSnapshotId ?? 0n;
    return { before: { snapshotId, state: await loadState(source.database, snapshotId, source.tx) }, partial: false };
  }
  const partial = foreign.partial || ids.some((id) => partialIds.has(id));
  // The state before an event that is not partial is final, so that nothing in it may be a guess.
  const { partialFor: _us, ...exactly } = source;
  return { before: await stateBeforeEvent(partial ? source : exactly, prevEvents, foreign.states), partial };
}

function onlyState({ source }: RoomTurn, ids: readonly EventId[]): bigint | undefined {
  const [only, ...others] = statesOf(source.atHand, ids);
  return others.length === 0 ? only : undefined;
}

/**
 * Whether a message of ours may be judged by the room's current state instead of the state behind it. In a partial room
 * tens of thousands of members would have to be read first, while its sender waits; but the current state lacks nothing
 * of what it was compared with but unknown members of other servers: the auth rules ask of a message for none of these.
 */
function isJudgedByCurrentState({ source, front }: RoomTurn, behind: bigint, message: Placing): boolean {
  const key = statesKey(new Set([behind]));
  return (
    isMessage(message) &&
    serverNameOf(message.sender) === source.ourServer &&
    key === front.resolvedOf &&
    // What is behind the room's other extremities is no concern of this event, but of the current state after it.
    key === statesKey(statesOf(source.atHand, front.extremities))
  );
}

function isMessage({ type, state_key: stateKey }: Placing): boolean {
  return stateKey === undefined && type !== "m.room.create";
}

/** The state, or of a large one that is not at hand as much as the auth rules ask for. */
async function stateToJudgeBy(
  { source: { database, tx, rules }, excerpts }: RoomTurn,
  snapshotId: bigint,
  { type, sender }: Placing,
): Promise<StateMap> {
  const excerptId = `${snapshotId} ${sender}`;
  const known = excerpts.get(excerptId) ?? (await loadStateIfSmall(database, snapshotId, tx));
  if (known !== undefined) return known;
  const keys = [["m.room.create", ""] as const, ...authTypesFor({ type, sender, content: {} }, rules)];
  const excerpt = stateFromEntries(await lookUpManyInSnapshot(tx, snapshotId, keys));
  excerpts.set(excerptId, excerpt);
  return excerpt;
}

/** Whether the current state after the event follows without a resolution. */
function staysResolved({ front, source }: RoomTurn, { pdu }: Event, prevIds: readonly EventId[]): boolean {
  const others = front.extremities.filter((id) => !prevIds.includes(id));
  if (others.length === 0) return true;
  if (isStateEvent(pdu)) return false;
  const before = statesOf(source.atHand, prevIds);
  // Behind several states lies what they come to, which is none of them and asks for a resolution with the others.
  const after = before.size > 1 ? [front.currentSnapshotId ?? -1n] : before;
  const states = new Set([...statesOf(source.atHand, others), ...after]);
  return states.size === 1 || statesKey(states) === front.resolvedOf;
}
