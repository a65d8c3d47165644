import { prevEventIds } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, loadEvents } from "../../storage/events.ts";
import { resyncDrops } from "../../storage/resync-drops.ts";
import { areStateIdsStored, fetchedSnapshot } from "../../storage/resync-state-ids.ts";

/**
 * By event, its prev_events that are in no timeline and whose state is not wholly stored; none where all is there, or
 * an operator has dropped the event.
 */
export async function statesLacking(
  connection: Connection,
  roomId: RoomId,
  eventIds: readonly EventId[],
): Promise<ReadonlyMap<EventId, readonly EventId[]>> {
  const events = await loadEvents(connection, eventIds);
  for (const { eventId } of await resyncDrops(connection, roomId)) events.delete(eventId);
  const wanted = new Set([...events.values()].flatMap((event) => prevEventIds(event.pdu)));
  const prevEvents = await loadEvents(connection, [...wanted]);
  const missing = new Set<EventId>();
  for (const id of wanted) {
    const prev = prevEvents.get(id);
    if (hasState(prev, roomId)) continue;
    if (prev === undefined || !(await isStateWhole(connection, roomId, id))) missing.add(id);
  }
  return new Map(
    eventIds.flatMap((eventId) => {
      const event = events.get(eventId);
      const lacking = event === undefined ? [] : prevEventIds(event.pdu).filter((id) => missing.has(id));
      return lacking.length === 0 ? [] : [[eventId, lacking] as const];
    }),
  );
}

/** An answer to `/state_ids` is there, and every event that it names. */
async function isStateWhole(connection: Connection, roomId: RoomId, eventId: EventId): Promise<boolean> {
  if ((await fetchedSnapshot(connection, roomId, eventId)) !== undefined) return true;
  return await areStateIdsStored(connection, roomId, eventId);
}
