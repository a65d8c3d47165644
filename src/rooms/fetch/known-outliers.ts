import type { Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { jsonWeight } from "../../matrix/json-weight.ts";

/** Asked for by nearly every event to come. All others are looked up in the database. */
const NAMED_BY_MANY: ReadonlySet<string> = new Set(["m.room.create", "m.room.power_levels", "m.room.join_rules"]);
const MAX_NAMED_WEIGHT = 8 * 1024 * 1024;

/** Judged events of an intake that are in memory. */
export interface KnownOutliers {
  /** By what is known now, whatever is forgotten meanwhile. */
  lookUp(): (eventId: EventId) => Event | undefined;
  /** Not in the database yet, so that they can be looked up nowhere else. */
  hold(events: readonly Event[]): void;
  /** All that was held until now is stored. */
  stored(): void;
}

export function createKnownOutliers(): KnownOutliers {
  let named = new Map<EventId, Event>();
  let held = new Map<EventId, Event>();
  let weight = 0;
  const name = (event: Event): void => {
    if (!NAMED_BY_MANY.has(event.pdu.type)) return;
    weight += jsonWeight(event.pdu);
    named.set(event.eventId, event);
  };
  return {
    lookUp() {
      const [inMemory, notStored] = [named, held];
      return (eventId) => notStored.get(eventId) ?? inMemory.get(eventId);
    },
    hold(events) {
      for (const event of events) held.set(event.eventId, event);
    },
    stored() {
      for (const event of held.values()) name(event);
      held = new Map();
      if (weight <= MAX_NAMED_WEIGHT) return;
      named = new Map();
      weight = 0;
    },
  };
}
