import { MatrixError } from "../../federation-api/matrix-error.ts";
import { originServerTsOf } from "../../matrix/event.ts";
import type { RoomId } from "../../matrix/identifiers.ts";
import { withSavepoint, type Connection } from "../../storage/database.ts";
import { loadEvent } from "../../storage/events.ts";
import { keepRoomForgotten } from "../../storage/forgotten-rooms.ts";
import { ownLeavesUndone, type OwnLeave } from "../../storage/member-events.ts";
import type { RoomsContext } from "../context.ts";
import { createEventWithin } from "../events/create-event.ts";

/**
 * Has users of ours who have left the room stay away from it. A room that is entered anew begins with what the resident
 * knew when it answered: a leave of ours that had not come there is in nobody's past, and its user would be back. So it
 * is made once more, on top of what the room is now and as of right after the first: wherever it meets what its user has
 * done since, that prevails.
 *
 * To be called where the room's current state has been set, in the same transaction: nobody sees the user come back.
 */
export async function stayAway(ctx: RoomsContext, tx: Connection, roomId: RoomId): Promise<void> {
  for (const leave of await ownLeavesUndone(tx, roomId, ctx.serverName)) {
    try {
      await withSavepoint(tx, () => leaveAgain(ctx, tx, roomId, leave));
    } catch (error) {
      // The room must not be lost to the others on that account.
      if (!(error instanceof MatrixError)) throw error;
      ctx.logger.warn({ err: error, roomId, ...leave }, "a user who has left could not be made to leave again");
    }
  }
}

async function leaveAgain(ctx: RoomsContext, tx: Connection, roomId: RoomId, leave: OwnLeave): Promise<void> {
  const { userId } = leave;
  const left = await loadEvent(tx, leave.eventId);
  if (left === undefined) return;
  const { reason } = left.pdu.content;
  const content = { membership: "leave", ...(reason === undefined ? {} : { reason }) };
  const at = originServerTsOf(left.pdu) + 1;
  const draft = { roomId, sender: userId, type: "m.room.member", stateKey: userId, content, at };
  const { eventId, streamId } = await createEventWithin(ctx, tx, draft);
  if (streamId !== null) await keepRoomForgotten(tx, { userId, roomId, streamId }, leave.streamId);
  ctx.logger.info({ roomId, userId, eventId, again: leave.eventId }, "a user who has left was made to leave again");
}
