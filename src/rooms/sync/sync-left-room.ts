import type { LongObject } from "../../federation-api/long-json.ts";
import { loadEvent } from "../../storage/events.ts";
import type { LocalMembershipChange } from "../../storage/streams.ts";
import { toClientEvents } from "../read/client-events.ts";
import type { RoomsContext } from "../context.ts";
import { syncToken } from "../read/sync-token.ts";
import { roomUpTo, stateGroup } from "./sync-joined-room.ts";
import type { SyncRequest } from "./sync.ts";

interface LeftRoom {
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
): Promise<LongObject | undefined> {
  const event = await loadEvent(ctx.database.pool, left.eventId);
  if (event === undefined) {
    return { timeline: { events: [], limited: false }, ...stateGroup(request, []) };
  }
  if (before?.membership === "join" && event.streamId !== null && event.stateAfter !== null) {
    const { timeline, state } = await roomUpTo(ctx, request, {
      roomId: left.roomId,
      since: request.since,
      position: left.streamId,
      leftAt: left.streamId,
      snapshotId: event.stateAfter,
    });
    return { timeline, ...stateGroup(request, state) };
  }
  // Where the inviting server could not be told, what is noted is the invitation itself.
  const end = event.pdu.content["membership"] === left.membership ? [event] : [];
  return {
    timeline: {
      events: await toClientEvents(ctx, end, { withRoomId: false, device: request.requester }),
      limited: false,
      prev_batch: syncToken(left.streamId - 1n),
    },
    ...stateGroup(request, []),
  };
}
