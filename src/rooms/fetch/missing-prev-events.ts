import { prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { hasState, loadEvents } from "../../storage/events.ts";
import type { RoomsContext } from "../context.ts";

/** The prev_events of an event whose state after them is not known here. */
export async function missingPrevEvents(ctx: RoomsContext, event: Event): Promise<readonly EventId[]> {
  const ids = prevEventIds(event.pdu);
  const known = await loadEvents(ctx.database.pool, ids);
  return ids.filter((id) => !hasState(known.get(id), event.roomId));
}
