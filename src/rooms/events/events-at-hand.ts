import { isStateEvent } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";

/**
 * Events that were read or placed under a room's lock. Until it ends nobody else changes what became of them, so that
 * each is read once however many are judged by it.
 */
export interface EventsAtHand {
  readonly known: Map<EventId, StoredEvent>;
  /** Those that are placed and not in the database yet. */
  readonly unwritten: ReadonlySet<EventId>;
}

interface EventSource {
  readonly tx: Connection;
  readonly atHand?: EventsAtHand;
}

/** Those of the events that we have; what had to be read is at hand from then on. */
export async function eventsOf(
  { tx, atHand }: EventSource,
  ids: readonly EventId[],
): Promise<Map<EventId, StoredEvent>> {
  if (atHand === undefined) return await loadEvents(tx, ids);
  const { known } = atHand;
  const unread = ids.filter((id) => !known.has(id));
  if (unread.length > 0) for (const [id, event] of await loadEvents(tx, unread)) known.set(id, event);
  return new Map(
    ids.flatMap((id) => {
      const event = known.get(id);
      return event === undefined ? [] : [[id, event] as const];
    }),
  );
}

/** State events that a resolution can't find in the database yet. */
export function unwrittenState({ atHand }: EventSource): readonly StoredEvent[] {
  return [...(atHand?.unwritten ?? [])].flatMap((id) => {
    const event = atHand?.known.get(id);
    return event !== undefined && isStateEvent(event.pdu) ? [event] : [];
  });
}
