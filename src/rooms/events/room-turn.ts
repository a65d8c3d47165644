import { isStateEvent, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, type StoredEvent } from "../../storage/events.ts";
import { loadEventsAndStanding, roomFronts, whichAreBuiltUpon } from "../../storage/room-graph.ts";
import { lockFreeRooms, lockRoom, type RoomRow } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { authEventIdsWithCreate } from "./authorize-outliers.ts";
import type { EventsAtHand } from "./events-at-hand.ts";
import type { StateSource } from "./state-before-event.ts";
import type { CurrentStateChange } from "./update-current-state.ts";

class RoomUnknown extends Error {
  constructor(roomId: RoomId) {
    super(`room ${roomId} is not known here`);
    this.name = "RoomUnknown";
  }
}

/**
 * A room under its lock, while events are placed in it one behind the other in one transaction: each is judged by what
 * those before it have made of the room, and all of them are written together at the end (`write-turn.ts`), so that
 * fifty events take hardly more statements than one, and a place in the streams is taken for a moment only.
 */
export interface RoomTurn {
  readonly source: StateSource & { readonly atHand: EventsAtHand & { readonly unwritten: Set<EventId> } };
  /** Of the events at hand those that are known on partial state only. */
  readonly partialIds: Set<EventId>;
  /** Of the events to be placed those that events of the timeline build on: they fill a gap. */
  readonly builtUpon: ReadonlySet<EventId>;
  /** Where the room stands after what was placed. */
  readonly front: TurnFront;
  readonly placed: PlacedEvent[];
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
  readonly news: CurrentStateNews | undefined;
}

export interface CurrentStateNews {
  readonly change: CurrentStateChange;
  /** What clients are told of it. */
  readonly told: CurrentStateChange["changes"];
}

/**
 * Locks the room, and reads what the placing of these events asks for.
 *
 * @param events all of one room, at least one
 * @throws RoomUnknown
 */
export async function openTurn(ctx: RoomsContext, tx: Connection, events: readonly Event[]): Promise<RoomTurn> {
  const roomId = events[0]?.roomId ?? "!";
  const room = await lockRoom(tx, roomId);
  const [turn] = room === undefined ? [] : await turnsIn(ctx, tx, { rooms: [room], events });
  if (turn === undefined) throw new RoomUnknown(roomId);
  return turn;
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
  const builtUpon = await whichAreBuiltUpon(tx, events);
  return rooms.flatMap(({ roomId, currentSnapshotId }) => {
    const [rules, room] = [rulesOfRoom.get(roomId), frontOf.get(roomId)];
    if (rules === undefined || room === undefined) return [];
    const front = { extremities: room.extremities, moved: false, currentSnapshotId, resolvedOf: undefined };
    const atHand = { known, unwritten: new Set<EventId>() };
    const partialFor = room.partial ? { partialFor: ctx.serverName } : {};
    const source = { database: ctx.database, tx, roomId, rules, atHand, ...partialFor };
    return [withResolved({ source, partialIds, builtUpon, front, placed: [] })];
  });
}

/** Of partial states a repair may have replaced some since. */
function withResolved(turn: RoomTurn): RoomTurn {
  if (turn.source.partialFor === undefined) turn.front.resolvedOf = resolvedByNow(turn);
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
  return statesOf(atHand, prevIds).size === 1 && staysResolved(turn, event, prevIds);
}

/** Whether the current state after the event follows without a resolution. */
function staysResolved({ front, source }: RoomTurn, { pdu }: Event, prevIds: readonly EventId[]): boolean {
  const others = front.extremities.filter((id) => !prevIds.includes(id));
  if (others.length === 0) return true;
  if (isStateEvent(pdu)) return false;
  const states = new Set([...statesOf(source.atHand, others), ...statesOf(source.atHand, prevIds)]);
  return states.size === 1 || statesKey(states) === front.resolvedOf;
}
