import { isStateEvent, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, type StoredEvent } from "../../storage/events.ts";
import { loadEventsAndStanding, roomFront, whichAreBuiltUpon } from "../../storage/room-graph.ts";
import { lockRoom } from "../../storage/rooms.ts";
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
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined) throw new RoomUnknown(roomId);
  const { extremities, partial } = await roomFront(tx, roomId);
  const ids = new Set(extremities);
  for (const event of events) {
    ids.add(event.eventId);
    for (const id of [...prevEventIds(event.pdu), ...authEventIdsWithCreate(event, rules)]) ids.add(id);
  }
  const standing = await loadEventsAndStanding(tx, [...ids]);
  const builtUpon = await whichAreBuiltUpon(
    tx,
    roomId,
    events.map(({ eventId }) => eventId),
  );
  const { currentSnapshotId } = room;
  const front: TurnFront = { extremities, moved: false, currentSnapshotId, resolvedOf: undefined };
  const atHand = { known: standing.events, unwritten: new Set<EventId>() };
  const source = { database: ctx.database, tx, roomId, rules, atHand, ...(partial && { partialFor: ctx.serverName }) };
  const turn: RoomTurn = { source, partialIds: standing.partial, builtUpon, front, placed: [] };
  // Of partial states a repair may have replaced some since.
  if (!partial) front.resolvedOf = resolvedByNow(turn);
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
  if (turn.placed.length === 0) return true;
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
