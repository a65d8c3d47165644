import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import type { ClientEvent } from "./client-event.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "../context.ts";
import { visibleEvents } from "./history-visibility.ts";
import { roomAccess } from "./room-access.ts";

/**
 * One event of a room's timeline or state.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
 * @throws MatrixError 404 M_NOT_FOUND for what is not there and for what may not be seen alike
 */
export async function readEvent(
  ctx: RoomsContext,
  wanted: {
    readonly roomId: RoomId;
    readonly eventId: EventId;
    readonly requester: { readonly userId: UserId; readonly deviceId: string };
  },
): Promise<ClientEvent> {
  const { roomId, eventId, requester } = wanted;
  const access = await roomAccess(ctx, roomId, requester.userId);
  const event = await loadEvent(ctx.database.pool, eventId);
  const shown = event !== undefined && event.roomId === roomId && !event.rejected && !event.softFailed;
  const visible = shown ? await visibleEvents(ctx, access, [event]) : [];
  const [found] = await toClientEvents(ctx, visible, { withRoomId: true, device: requester, withPrevContent: true });
  if (found === undefined) {
    throw new MatrixError(404, "M_NOT_FOUND", "There is no such event, or you may not see it");
  }
  return found;
}
