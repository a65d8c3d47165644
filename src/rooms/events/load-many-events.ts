import type { EventId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents } from "../../storage/events.ts";
import type { StoredEvent } from "../../storage/events.ts";

/** Parsing so many takes some milliseconds: others get their turn in between. */
export const EVENTS_AT_ONCE = 1_000;

/** Those of the events that we have: for whole states, of which some have 100,000 events, without stalling others. */
export async function loadManyEvents(c: Connection, ids: readonly EventId[]): Promise<readonly StoredEvent[]> {
  const events: StoredEvent[] = [];
  for (let start = 0; start < ids.length; start += EVENTS_AT_ONCE) {
    const found = await loadEvents(c, ids.slice(start, start + EVENTS_AT_ONCE));
    events.push(...found.values());
  }
  return events;
}
