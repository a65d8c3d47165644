import { prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { StateMap } from "../../../src/matrix/state.ts";
import { verdictOn } from "../../resident/compose-event.ts";
import { mustHave, stateBeforeAll, type HostedRoom } from "../../resident/hosted-room.ts";

/** What a server that knows the whole room makes of events that arrive in some order. */
export interface Replayed {
  readonly softFailed: ReadonlySet<EventId>;
  readonly extremities: readonly EventId[];
  readonly currentState: StateMap;
}

/**
 * Check 6, written down as plainly as can be: each event is judged by the room's current state when it arrives.
 *
 * @param arrivals the first is the server's own join, after which it knows the room
 */
export function replayArrivals(room: HostedRoom, arrivals: readonly EventId[]): Replayed {
  const softFailed = new Set<EventId>();
  const arrived: EventId[] = [];
  for (const eventId of arrivals) {
    const { event } = mustHave(room, eventId);
    const current = stateBeforeAll(room, tipsOf(room, arrived, softFailed));
    if (arrived.length > 0 && !event.rejected && !verdictOn(room, event, current).allowed) softFailed.add(eventId);
    arrived.push(eventId);
  }
  const extremities = tipsOf(room, arrived, softFailed).toSorted();
  return { softFailed, extremities, currentState: stateBeforeAll(room, extremities) };
}

/** Accepted events on which no accepted one builds, be it through refused ones. */
function tipsOf(room: HostedRoom, arrived: readonly EventId[], softFailed: ReadonlySet<EventId>): readonly EventId[] {
  const isRefused = (id: EventId): boolean => mustHave(room, id).event.rejected || softFailed.has(id);
  const known = new Set(arrived);
  const builtOn = new Set<EventId>();
  const queue = arrived.filter((id) => !isRefused(id));
  for (let id = queue.pop(); id !== undefined; id = queue.pop()) {
    for (const prev of prevEventIds(mustHave(room, id).event.pdu)) {
      if (builtOn.has(prev)) continue;
      builtOn.add(prev);
      if (known.has(prev) && isRefused(prev)) queue.push(prev);
    }
  }
  return arrived.filter((id) => !isRefused(id) && !builtOn.has(id));
}
