import { authEventIds, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";

/** Each may be 64 KiB of JSON, and several times that when it is read. */
const MOST_EVENTS_READ = 250;

/**
 * As many as may be placed in one transaction, at least the first: what they name is read at once and held to its end.
 * A server can name twenty events of its own with each of fifty; honest ones mostly name each other and the same few.
 */
export function inputsAtOnce<T extends { readonly event: Event }>(inputs: readonly T[]): readonly T[] {
  const ids = new Set<EventId>();
  for (const [index, { event }] of inputs.entries()) {
    for (const id of [event.eventId, ...prevEventIds(event.pdu), ...authEventIds(event.pdu)]) ids.add(id);
    if (index > 0 && ids.size > MOST_EVENTS_READ) return inputs.slice(0, index);
  }
  return inputs;
}
