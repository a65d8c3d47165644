import { LRUCache } from "lru-cache";
import { authEventIds, createEventIdOf, depthOf, isStateEvent, prevEventIds } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import { serverNameOf } from "../../src/matrix/identifiers.ts";
import type { EventId, RoomId, ServerName, UserId } from "../../src/matrix/identifiers.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { resolveState } from "../../src/matrix/state-resolution/resolve.ts";
import {
  emptyState,
  splitStateKey,
  stateApply,
  stateEntries,
  stateGet,
  stateKeyOf,
  stateDiff,
} from "../../src/matrix/state.ts";
import type { StateKey, StateMap } from "../../src/matrix/state.ts";

/** An event of a hosted room with the text it is served as. */
export interface HostedEvent {
  readonly event: Event;
  readonly text: string;
}

/** A room as its residents know it: the whole graph, in memory. */
export interface HostedRoom {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** In the order in which they came. */
  readonly events: Map<EventId, HostedEvent>;
  readonly extremities: Set<EventId>;
  /** Events that no endpoint serves. */
  readonly withheld: Set<EventId>;
  /** States after events, as far as they are remembered. */
  readonly states: LRUCache<EventId, StateMap>;
  /** Milliseconds since the epoch of the newest event that the resident made. */
  clock: number;
}

export function newHostedRoom(roomId: RoomId, rules: RoomVersionRules): HostedRoom {
  return {
    roomId,
    rules,
    events: new Map(),
    extremities: new Set(),
    withheld: new Set(),
    states: new LRUCache({ max: 256 }),
    clock: Date.UTC(2025, 0, 1),
  };
}

export function eventOf(room: HostedRoom, eventId: EventId): Event | undefined {
  return room.events.get(eventId)?.event;
}

export function mustHave(room: HostedRoom, eventId: EventId): HostedEvent {
  const hosted = room.events.get(eventId);
  if (hosted === undefined) throw new Error(`the resident has no event ${eventId}`);
  return hosted;
}

/** Adds an event whose prev_events are known. A rejected or soft-failed one leaves the extremities as they were. */
export function addEvent(room: HostedRoom, hosted: HostedEvent, softFailed = false): void {
  const { event } = hosted;
  if (room.events.has(event.eventId)) return;
  room.events.set(event.eventId, hosted);
  if (event.rejected || softFailed) return;
  for (const prev of prevEventIds(event.pdu)) room.extremities.delete(prev);
  room.extremities.add(event.eventId);
}

function resolveStates(room: HostedRoom, states: readonly StateMap[]): StateMap {
  const [first, ...others] = states;
  if (first === undefined) return emptyState;
  if (others.every((other) => stateDiff(first, other).size === 0)) return first;
  return resolveState({ rules: room.rules, stateSets: states, event: (id) => eventOf(room, id) });
}

/** Room state after the event. Walks back to the nearest event whose state is remembered, not recursively. */
export function stateAfter(room: HostedRoom, eventId: EventId): StateMap {
  const path: EventId[] = [];
  let state = room.states.get(eventId);
  for (let at = eventId; state === undefined;) {
    path.push(at);
    const prev = prevEventIds(mustHave(room, at).event.pdu);
    const [only] = prev;
    if (prev.length === 1 && only !== undefined) {
      at = only;
      state = room.states.get(at);
    } else {
      state = stateBeforeAll(room, prev);
    }
  }
  const changes = new Map<StateKey, EventId>();
  for (const id of path.toReversed()) {
    const { event } = mustHave(room, id);
    if (!event.rejected && isStateEvent(event.pdu)) {
      changes.set(stateKeyOf(event.pdu.type, event.pdu.state_key), id);
    }
  }
  const after = stateApply(state, changes);
  room.states.set(eventId, after);
  return after;
}

/** The state before an event with these prev_events. */
export function stateBeforeAll(room: HostedRoom, prev: readonly EventId[]): StateMap {
  return resolveStates(
    room,
    prev.map((id) => stateAfter(room, id)),
  );
}

export function stateBefore(room: HostedRoom, eventId: EventId): StateMap {
  return stateBeforeAll(room, prevEventIds(mustHave(room, eventId).event.pdu));
}

/** The resolution of the states after all extremities. */
export function currentState(room: HostedRoom): StateMap {
  return stateBeforeAll(room, [...room.extremities].toSorted());
}

/** Everything reachable by auth edges; the events themselves only where another one of them reaches them. */
export function authChain(room: HostedRoom, ids: Iterable<EventId>): Set<EventId> {
  const chain = new Set<EventId>();
  const queue = [...ids];
  for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
    const event = eventOf(room, id);
    if (event === undefined) continue;
    for (const auth of authEdges(room, event)) {
      if (chain.has(auth)) continue;
      chain.add(auth);
      queue.push(auth);
    }
  }
  return chain;
}

/** Room version 12: the create event authorises every event, named by the room id. */
function authEdges(room: HostedRoom, event: Event): readonly EventId[] {
  const create = createEventIdOf(room.rules, room.roomId);
  const edges = authEventIds(event.pdu);
  return create === undefined || create === event.eventId ? edges : [...edges, create];
}

export function stateEventOf(
  room: HostedRoom,
  state: StateMap,
  [type, stateKey]: readonly [string, string],
): Event | undefined {
  const id = stateGet(state, type, stateKey);
  return id === undefined ? undefined : eventOf(room, id);
}

export function membershipIn(room: HostedRoom, state: StateMap, userId: UserId): string | undefined {
  const membership = stateEventOf(room, state, ["m.room.member", userId])?.pdu.content["membership"];
  return typeof membership === "string" ? membership : undefined;
}

const joinedInState = new WeakMap<StateMap, ReadonlyMap<ServerName, readonly UserId[]>>();

/** Joined users of a state, by server. */
export function joinedByServer(room: HostedRoom, state: StateMap): ReadonlyMap<ServerName, readonly UserId[]> {
  const known = joinedInState.get(state) ?? countJoined(room, state);
  joinedInState.set(state, known);
  return known;
}

function countJoined(room: HostedRoom, state: StateMap): Map<ServerName, UserId[]> {
  const servers = new Map<ServerName, UserId[]>();
  for (const [key, eventId] of stateEntries(state)) {
    const [type, stateKey] = splitStateKey(key);
    if (type !== "m.room.member" || eventOf(room, eventId)?.pdu.content["membership"] !== "join") continue;
    const userId = stateKey as UserId;
    const server = serverNameOf(userId) ?? "";
    const users = servers.get(server);
    if (users === undefined) servers.set(server, [userId]);
    else users.push(userId);
  }
  return servers;
}

export function nextDepth(room: HostedRoom, prev: readonly EventId[]): number {
  const depths = prev.map((id) => Number(depthOf(mustHave(room, id).event.pdu)));
  return Math.max(0, ...depths) + 1;
}
