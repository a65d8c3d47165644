import { authChainOf } from "../event-graph.ts";
import type { EventId } from "../identifiers.ts";
import type { RoomEvents } from "./room-events.ts";

/**
 * v12 on: the conflicted state subgraph, every event on a path of auth edges from one conflicted event to another,
 * both ends included.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v12/#definitions
 */
export function conflictedSubgraph(conflictedIds: ReadonlySet<EventId>, events: RoomEvents): Set<EventId> {
  const below = authChainOf(conflictedIds, events.authEdges);
  const citedBy = new Map<EventId, EventId[]>();
  for (const id of below) {
    for (const authId of events.authEdges(id)) {
      const known = citedBy.get(authId);
      if (known === undefined) {
        citedBy.set(authId, [id]);
      } else {
        known.push(id);
      }
    }
  }
  // Of what lies below the conflicted events, that from which another conflicted event can be reached.
  return authChainOf(conflictedIds, (id) => citedBy.get(id) ?? []);
}
