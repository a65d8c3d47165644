import { originServerTsOf } from "../event.ts";
import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import { authEventOf } from "./room-events.ts";
import type { RoomEvents } from "./room-events.ts";

/**
 * The mainline ordering of the events, based on the power levels that the power events were resolved to: first those
 * that are based on the earliest power levels, and of these the oldest.
 *
 * @param powerLevels the `m.room.power_levels` event of the partially resolved state, if it has one
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function mainlineOrder(
  toOrder: readonly Event[],
  powerLevels: Event | undefined,
  events: RoomEvents,
): readonly Event[] {
  const positions = new Map<EventId, number>();
  let next = powerLevels;
  while (next !== undefined && !positions.has(next.eventId)) {
    positions.set(next.eventId, positions.size);
    next = powerLevelsCitedBy(next, events);
  }
  return toOrder
    .map((event) => ({
      event,
      position: mainlinePosition(event, positions, events),
      timestamp: originServerTsOf(event.pdu),
    }))
    .sort((one, other) => {
      if (one.position !== other.position) {
        return one.position > other.position ? -1 : 1;
      }
      if (one.timestamp !== other.timestamp) {
        return one.timestamp - other.timestamp;
      }
      return one.event.eventId < other.event.eventId ? -1 : 1;
    })
    .map(({ event }) => event);
}

function powerLevelsCitedBy(event: Event, events: RoomEvents): Event | undefined {
  return authEventOf(event, "m.room.power_levels", "", events);
}

/**
 * How far back on the mainline the event's nearest power levels stand; Infinity where none does.
 *
 * @param positions of power levels that are known; those met on the way are added, for the next event's sake
 */
function mainlinePosition(event: Event, positions: Map<EventId, number>, events: RoomEvents): number {
  const met = new Set<EventId>();
  let position: number | undefined;
  let next = powerLevelsCitedBy(event, events);
  while (next !== undefined && position === undefined && !met.has(next.eventId)) {
    position = positions.get(next.eventId);
    met.add(next.eventId);
    next = powerLevelsCitedBy(next, events);
  }
  const found = position ?? Infinity;
  for (const id of met) {
    positions.set(id, found);
  }
  return found;
}
