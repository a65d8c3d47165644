import { authEventIds, createEventIdOf, isStateEvent } from "../event.ts";
import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import type { RoomVersionRules } from "../room-versions.ts";

/**
 * The events of one room as the steps of a state resolution see them.
 *
 * An event that can't be had is treated as if it were not named: an auth chain ends there.
 */
export interface RoomEvents {
  readonly rules: RoomVersionRules;
  readonly event: (id: EventId) => Event | undefined;
  readonly authEdges: (id: EventId) => readonly EventId[];
}

const NONE: readonly EventId[] = [];

export function roomEvents(rules: RoomVersionRules, event: (id: EventId) => Event | undefined): RoomEvents {
  const authEdges = (id: EventId): readonly EventId[] => {
    const found = event(id);
    return found === undefined ? NONE : authEventIds(found.pdu);
  };
  return { rules, event, authEdges };
}

/** The first of the event's auth events with this type and state key; v12 on: the create event that the room id names. */
export function authEventOf(event: Event, type: string, stateKey: string, events: RoomEvents): Event | undefined {
  if (type === "m.room.create" && stateKey === "") {
    const createId = createEventIdOf(events.rules, event.roomId);
    if (createId !== undefined) {
      return events.event(createId);
    }
  }
  for (const id of events.authEdges(event.eventId)) {
    const authEvent = events.event(id);
    if (
      authEvent !== undefined &&
      authEvent.pdu.type === type &&
      isStateEvent(authEvent.pdu) &&
      authEvent.pdu.state_key === stateKey
    ) {
      return authEvent;
    }
  }
  return undefined;
}
