import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { backfillHistory } from "../fetch/backfill-history.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "../context.ts";
import type { EventFilter } from "./event-filter.ts";
import { memberEventsOfSenders } from "./lazy-members.ts";
import { roomAccess, type RoomAccess } from "./room-access.ts";
import { syncToken } from "./sync-token.ts";
import { visibleTimeline, type TimelinePage, type TimelinePageWanted } from "./visible-timeline.ts";

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
  const access = await roomAccess(ctx, wanted.roomId, wanted.requester.userId);
  const backward = wanted.direction === "b";
  const start = wanted.from ?? (backward ? access.leftAt : undefined);
  const page = await pageFrom(ctx, wanted, { access, start });
  const chunk = await toClientEvents(ctx, page.events, {
    withRoomId: true,
    device: wanted.requester,
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

async function pageFrom(
  ctx: RoomsContext,
  { roomId, direction, to, limit, filter }: MessagesWanted,
  { access, start }: { readonly access: RoomAccess; readonly start: bigint | undefined },
): Promise<TimelinePage> {
  const range: TimelinePageWanted = {
    from: start,
    to,
    direction: direction === "b" ? "backward" : "forward",
    limit: Math.min(limit, filter.limit ?? limit),
    filter,
  };
  const page = await visibleTimeline(ctx, roomId, access, range);
  const atTheBeginning = direction === "b" && page.next === undefined && to === undefined;
  if (!atTheBeginning || (await backfillHistory(ctx, roomId)) === 0) return page;
  return await visibleTimeline(ctx, roomId, access, range);
}

/** Where a page without a given start began: before or behind its first event. */
function startOf(streamId: bigint | null | undefined, backward: boolean): bigint {
  const position = streamId ?? 0n;
  return backward ? position : position - 1n;
}
