import type { RoomId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadEvents } from "../../storage/events.ts";
import { goneFromCurrentState, type StreamRange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { toClientEvent, type ClientEvent } from "./client-event.ts";
import { passesFilter, type EventFilter } from "./event-filter.ts";
import { roomRules } from "../../storage/rooms.ts";

/**
 * What is told of state that is gone: the full state refused the event that held a key, and nothing has taken its
 * place. The protocol has no word for that. So a client gets the event once more without its content, as a redaction
 * would leave it; of a member, that they are not in the room (docs/decisions/015).
 */
export async function goneStateEvents(
  ctx: RoomsContext,
  roomId: RoomId,
  { range, filter }: { readonly range: StreamRange; readonly filter: EventFilter },
): Promise<readonly ClientEvent[]> {
  const { pool } = ctx.database;
  const ids = await goneFromCurrentState(pool, roomId, range);
  const rules = ids.length === 0 ? undefined : await roomRules(pool, roomId);
  if (rules === undefined) return [];
  const events = await loadEvents(pool, ids);
  return [...events.values()]
    .filter(({ pdu }) => passesFilter(pdu, filter))
    .map((event) => toGoneEvent(event, { rules, now: ctx.now(), withRoomId: false }));
}

export function toGoneEvent(
  event: StoredEvent,
  framing: { readonly rules: RoomVersionRules; readonly now: number; readonly withRoomId: boolean },
): ClientEvent {
  const content = event.pdu.type === "m.room.member" ? { membership: "leave" } : {};
  return toClientEvent({ ...event, pdu: { ...event.pdu, content } }, { ...framing, gone: true });
}
