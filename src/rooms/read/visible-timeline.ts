import type { RoomId } from "../../matrix/identifiers.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { timeline } from "../../storage/timeline.ts";
import type { RoomsContext } from "../context.ts";
import { passesFilter } from "./event-filter.ts";
import type { EventFilter } from "./event-filter.ts";
import { visibleEvents } from "./history-visibility.ts";
import type { Viewer } from "./history-visibility.ts";

export interface TimelinePageWanted {
  readonly from: bigint | undefined;
  readonly to: bigint | undefined;
  readonly direction: "forward" | "backward";
  /** Of events that the user may see and the filter lets through. */
  readonly limit: number;
  readonly filter: EventFilter;
}

export interface TimelinePage {
  /** In the direction of reading. */
  readonly events: readonly StoredEvent[];
  /** Where the next page starts; undefined behind the last one. */
  readonly next: bigint | undefined;
}

/** Events read at most for one page, that a filter which matches nothing can't read a room to its end. */
const MAX_READ = 5_000;

/** A page of a room's timeline as one user may see it: nothing rejected, soft-failed or hidden by the room's history. */
export async function visibleTimeline(
  ctx: RoomsContext,
  roomId: RoomId,
  viewer: Viewer,
  wanted: TimelinePageWanted,
): Promise<TimelinePage> {
  const found: StoredEvent[] = [];
  let { from } = wanted;
  let read = 0;
  for (;;) {
    const batchSize = Math.max(wanted.limit - found.length, found.length === 0 ? 1 : 20) + 1;
    const batch = await timeline(ctx.database.pool, roomId, { ...wanted, from, limit: batchSize });
    const visible = new Set(await visibleEvents(ctx, viewer, batch));
    for (const event of batch) {
      if (found.length === wanted.limit) {
        return { events: found, next: from };
      }
      if (visible.has(event) && passesFilter(event.pdu, wanted.filter)) {
        found.push(event);
      }
      from = positionBehind(event, wanted.direction);
    }
    read += batch.length;
    if (batch.length < batchSize) {
      return { events: found, next: undefined };
    }
    if (read >= MAX_READ) {
      return { events: found, next: from };
    }
  }
}

/** Positions stand between events: behind one when reading forward, before it when reading backward. */
function positionBehind(event: StoredEvent, direction: "forward" | "backward"): bigint {
  if (event.streamId === null) {
    throw new Error(`${event.eventId} is in no timeline`);
  }
  return direction === "forward" ? event.streamId : event.streamId - 1n;
}
