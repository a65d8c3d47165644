import { userLevel } from "../authorization/levels.ts";
import type { Level } from "../authorization/levels.ts";
import { originServerTsOf } from "../event.ts";
import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import { authEventOf } from "./room-events.ts";
import type { RoomEvents } from "./room-events.ts";

/**
 * A power event might take somebody's ability to do something in the room away: power levels, join rules, and
 * memberships by which one user removes another. As in all servers, and beyond the specification's words, the create
 * event counts too, and power levels and join rules only where the state key is empty.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function isPowerEvent({ pdu }: Event): boolean {
  switch (pdu.type) {
    case "m.room.create":
    case "m.room.power_levels":
    case "m.room.join_rules":
      return pdu.state_key === "";
    case "m.room.member": {
      const { membership } = pdu.content;
      return (
        (membership === "leave" || membership === "ban") && pdu.state_key !== undefined && pdu.sender !== pdu.state_key
      );
    }
    default:
      return false;
  }
}

/**
 * The power events among these with what is in their auth chains: step 1 of the algorithm selects them.
 *
 * The chains are followed as long as they stay within the full conflicted set, as other servers do.
 */
export function withConflictedAuthChains(
  powerEvents: Iterable<EventId>,
  fullConflicted: ReadonlySet<EventId>,
  events: RoomEvents,
): Set<EventId> {
  const selected = new Set(powerEvents);
  for (const id of selected) {
    for (const authId of events.authEdges(id)) {
      if (fullConflicted.has(authId)) {
        selected.add(authId);
      }
    }
  }
  return selected;
}

interface Vertex {
  readonly event: Event;
  readonly senderLevel: Level;
  readonly timestamp: number;
  /** The vertices that name this one among their auth events. */
  readonly citedBy: Vertex[];
  /** How many of its own auth events are not in the order yet. */
  waitingFor: number;
}

/**
 * The reverse topological power ordering: auth events come first; where that leaves a choice, the event whose sender
 * has the greater power level, then the older one, then the one with the lesser id.
 *
 * Events on a cycle of auth edges, which nobody can make where ids are hashes, are left out.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function reverseTopologicalPowerOrder(ids: ReadonlySet<EventId>, events: RoomEvents): Event[] {
  const vertices = new Map<EventId, Vertex>();
  for (const id of ids) {
    const event = events.event(id);
    if (event !== undefined) {
      const timestamp = originServerTsOf(event.pdu);
      vertices.set(id, { event, senderLevel: senderLevelOf(event, events), timestamp, citedBy: [], waitingFor: 0 });
    }
  }
  for (const vertex of vertices.values()) {
    for (const authId of new Set(events.authEdges(vertex.event.eventId))) {
      const authVertex = vertices.get(authId);
      if (authVertex !== undefined) {
        authVertex.citedBy.push(vertex);
        vertex.waitingFor += 1;
      }
    }
  }

  const candidates: Vertex[] = [];
  for (const vertex of vertices.values()) {
    if (vertex.waitingFor === 0) {
      pushCandidate(candidates, vertex);
    }
  }
  const ordered: Event[] = [];
  for (let next = popCandidate(candidates); next !== undefined; next = popCandidate(candidates)) {
    ordered.push(next.event);
    for (const vertex of next.citedBy) {
      vertex.waitingFor -= 1;
      if (vertex.waitingFor === 0) {
        pushCandidate(candidates, vertex);
      }
    }
  }
  return ordered;
}

/** The power level of the event's sender as its own auth events have it. */
function senderLevelOf(event: Event, events: RoomEvents): Level {
  const create = event.pdu.type === "m.room.create" ? event : authEventOf(event, "m.room.create", "", events);
  const powerLevels = authEventOf(event, "m.room.power_levels", "", events);
  const level = userLevel(event.pdu.sender, create, powerLevels, events.rules);
  // What can't be read must not spoil the order.
  return Number.isNaN(level) ? 0 : level;
}

function comesBefore(one: Vertex, other: Vertex): boolean {
  if (one.senderLevel !== other.senderLevel) {
    return one.senderLevel > other.senderLevel;
  }
  if (one.timestamp !== other.timestamp) {
    return one.timestamp < other.timestamp;
  }
  return one.event.eventId < other.event.eventId;
}

/** `heap` is a binary heap with the least vertex on top. */
function pushCandidate(heap: Vertex[], vertex: Vertex): void {
  let index = heap.push(vertex) - 1;
  while (index > 0) {
    const parentIndex = (index - 1) >> 1;
    const parent = heap[parentIndex];
    if (parent === undefined || !comesBefore(vertex, parent)) {
      break;
    }
    heap[index] = parent;
    index = parentIndex;
  }
  heap[index] = vertex;
}

function popCandidate(heap: Vertex[]): Vertex | undefined {
  const top = heap[0];
  const last = heap.pop();
  if (top === undefined || last === undefined || heap.length === 0) {
    return top;
  }
  let index = 0;
  for (;;) {
    let childIndex = 2 * index + 1;
    let child = heap[childIndex];
    const right = heap[childIndex + 1];
    if (child !== undefined && right !== undefined && comesBefore(right, child)) {
      childIndex += 1;
      child = right;
    }
    if (child === undefined || !comesBefore(child, last)) {
      break;
    }
    heap[index] = child;
    index = childIndex;
  }
  heap[index] = last;
  return top;
}
