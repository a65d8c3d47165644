import type { EventId } from "./identifiers.ts";

/**
 * `cyclic` holds the events on a cycle and those that depend on one: where ids are hashes there can be none, and in room
 * versions 1 and 2 somebody made them up.
 */
interface TopologicalOrder<E> {
  readonly ordered: readonly E[];
  readonly cyclic: readonly E[];
}

/**
 * Orders events so that whatever an event names by its edges comes before it.
 *
 * The order depends on the set of the events only, not on the order in which they are given. Edges to events outside
 * the set are ignored. Takes no stack, however deep the graph is.
 *
 * @param edgesOf the ids an event points at, for instance `(event) => authEventIds(event.pdu)`
 */
export function topologicalOrder<E extends { readonly eventId: EventId }>(
  events: Iterable<E>,
  edgesOf: (event: E) => readonly EventId[],
): TopologicalOrder<E> {
  const byId = new Map([...events].map((event) => [event.eventId, event]));
  const sorted = [...byId.values()].sort((one, other) => (one.eventId < other.eventId ? -1 : 1));
  const waitingFor = new Map<EventId, number>();
  const dependents = new Map<EventId, E[]>();
  const ordered: E[] = [];
  for (const event of sorted) {
    const edges = new Set(edgesOf(event).filter((id) => byId.has(id)));
    waitingFor.set(event.eventId, edges.size);
    if (edges.size === 0) {
      ordered.push(event);
    }
    for (const id of edges) {
      const known = dependents.get(id);
      if (known === undefined) {
        dependents.set(id, [event]);
      } else {
        known.push(event);
      }
    }
  }
  // An array's iterator sees what is pushed while it runs: `ordered` is its own work list.
  for (const event of ordered) {
    for (const dependent of dependents.get(event.eventId) ?? []) {
      const left = (waitingFor.get(dependent.eventId) ?? 0) - 1;
      waitingFor.set(dependent.eventId, left);
      if (left === 0) {
        ordered.push(dependent);
      }
    }
  }
  const isCyclic = ({ eventId }: E): boolean => (waitingFor.get(eventId) ?? 0) > 0;
  return { ordered, cyclic: ordered.length === sorted.length ? [] : sorted.filter(isCyclic) };
}

/**
 * The ids and everything that can be reached from them by auth edges: the auth chain of a state whose events these
 * are. (For the auth chain of one event as the specification defines it, take the event itself away.)
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function authChainOf(ids: Iterable<EventId>, authEdges: (id: EventId) => readonly EventId[]): Set<EventId> {
  const chain = new Set(ids);
  // A set's iterator sees what is added while it runs.
  for (const id of chain) {
    for (const authId of authEdges(id)) {
      chain.add(authId);
    }
  }
  return chain;
}
