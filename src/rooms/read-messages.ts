import type { RoomId, UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { backfillHistory } from "./backfill-history.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "./context.ts";
import type { EventFilter } from "./event-filter.ts";
import { memberEventsOfSenders } from "./lazy-members.ts";
import { roomAccess } from "./room-access.ts";
import { syncToken } from "./sync-token.ts";
import { visibleTimeline, type TimelinePageWanted } from "./visible-timeline.ts";

export interface MessagesWanted {
  readonly roomId: RoomId;
  readonly requester: { readonly userId: UserId; readonly deviceId: string };
  /** `b`: from the newest back; `f`: in the order of arrival. */
  readonly direction: "b" | "f";
  readonly from: bigint | undefined;
  readonly to: bigint | undefined;
  readonly limit: number;
  readonly filter: EventFilter;
}

/**
 * A page of a room's timeline. Never waits for the full state. At the end of what we know, the history before it is
 * fetched from another server.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
 * @throws MatrixError 403 M_FORBIDDEN
 */
export async function readMessages(ctx: RoomsContext, wanted: MessagesWanted): Promise<JsonObject> {
  const { roomId, requester } = wanted;
  const access = await roomAccess(ctx, roomId, requester.userId);
  const backward = wanted.direction === "b";
  const start = wanted.from ?? (backward ? access.leftAt : undefined);
  const range: TimelinePageWanted = {
    from: start,
    to: wanted.to,
    direction: backward ? "backward" : "forward",
    limit: Math.min(wanted.limit, wanted.filter.limit ?? wanted.limit),
    filter: wanted.filter,
  };
  let page = await visibleTimeline(ctx, roomId, access, range);
  const atTheEnd = backward && page.next === undefined && wanted.to === undefined;
  if (atTheEnd && (await backfillHistory(ctx, roomId)) > 0) page = await visibleTimeline(ctx, roomId, access, range);
  const chunk = await toClientEvents(ctx, page.events, {
    withRoomId: true,
    device: requester,
    withPrevContent: true,
  });
  const members =
    wanted.filter.lazy_load_members === true ? await memberEventsOfSenders(ctx, access.snapshotId, page.events) : [];
  return {
    chunk,
    start: syncToken(start ?? startOf(page.events[0]?.streamId, backward)),
    ...(page.next === undefined ? {} : { end: syncToken(page.next) }),
    ...(members.length === 0 ? {} : { state: await toClientEvents(ctx, members, { withRoomId: true }) }),
  };
}

/** Where a page without a given start began: before or behind its first event. */
function startOf(streamId: bigint | null | undefined, backward: boolean): bigint {
  const position = streamId ?? 0n;
  return backward ? position : position - 1n;
}
