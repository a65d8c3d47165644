import type { JsonObject } from "../matrix/json.ts";
import { loadEvent } from "../storage/events.ts";
import type { LocalMembershipChange } from "../storage/streams.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "./context.ts";
import { syncToken } from "./sync-token.ts";
import { roomUpTo } from "./sync-joined-room.ts";
import type { SyncRequest } from "./sync.ts";

export interface LeftRoom {
  readonly left: LocalMembershipChange;
  /** The user's standing when they asked last. */
  readonly before: LocalMembershipChange | undefined;
}

/**
 * A room that the user is no longer in: what happened up to when they left. Of a room they were never joined in, as
 * with a declined invitation, only the end is told.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_left-room
 */
export async function leftRoom(
  ctx: RoomsContext,
  request: SyncRequest,
  { left, before }: LeftRoom,
): Promise<JsonObject | undefined> {
  const event = await loadEvent(ctx.database.pool, left.eventId);
  if (event === undefined) {
    return { timeline: { events: [], limited: false }, state: { events: [] } };
  }
  if (before?.membership === "join" && event.streamId !== null && event.stateAfter !== null) {
    return roomUpTo(ctx, request, {
      roomId: left.roomId,
      since: request.since,
      position: left.streamId,
      leftAt: left.streamId,
      snapshotId: event.stateAfter,
    });
  }
  const [end] = await toClientEvents(ctx, [event], { withRoomId: false, device: request.requester });
  return {
    timeline: {
      events: end === undefined ? [] : [end],
      limited: false,
      prev_batch: syncToken(left.streamId - 1n),
    },
    state: { events: [] },
  };
}
