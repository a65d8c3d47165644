import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvent } from "../../storage/events.ts";
import { lockPartialRoom, partialEventIds, type PartialRoom } from "../../storage/partial-state.ts";
import { insertResyncDrop, resyncDrops, type ResyncDrop } from "../../storage/resync-drops.ts";
import { lockRoom } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { statesLacking } from "./states-lacking.ts";

/** Who drops an event, and why. */
export interface EventToDrop {
  readonly roomId: RoomId;
  readonly eventId: EventId;
  readonly by: string;
  readonly why: string;
}

/**
 * Notes that nobody can give the state before a partial event: its repair, the resync's next step, rejects it
 * (`dropped-event.ts`). Dropping it once more changes nothing.
 *
 * @throws MatrixError 409 FASTJOIN.NOT_PARTIAL where the room or the event is not partial; FASTJOIN.NOT_DROPPABLE where
 * the event lacks no state itself, or is our join or to be repaired behind it
 */
export async function dropEvent(ctx: RoomsContext, { roomId, eventId, by, why }: EventToDrop): Promise<void> {
  await commit(ctx, "note an operator's wish", async (tx) => {
    await lockRoom(tx, roomId);
    const room = await lockPartialRoom(tx, roomId);
    if (room === undefined) throw notPartial(`${roomId} has no partial state, so nothing of it lacks a state`);
    const drop: ResyncDrop = { roomId, eventId, by, at: ctx.now(), why };
    if ((await resyncDrops(tx, roomId)).some((one) => one.eventId === eventId)) return;
    await requireDroppable(tx, room, eventId);
    await insertResyncDrop(tx, drop);
    ctx.logger.warn({ roomId, eventId, by, why }, "an operator dropped an event whose state nobody can give");
  });
}

async function requireDroppable(tx: Connection, { roomId, joinEventId }: PartialRoom, eventId: EventId): Promise<void> {
  if (eventId === joinEventId) {
    throw notDroppable(`${eventId} is our join: without the state before it the room can only be left`);
  }
  const partial = await partialEventIds(tx, [eventId, ...(joinEventId === null ? [] : [joinEventId])]);
  // Dropped here, another room's event would be rejected there, were it our join of that room.
  if (!partial.has(eventId) || (await loadEvent(tx, eventId))?.roomId !== roomId)
    throw notPartial(`${eventId} is no event of ${roomId} that is known on partial state only`);
  const lacking = await statesLacking(tx, roomId, [eventId]);
  if (!lacking.has(eventId)) {
    throw notDroppable(`${eventId} lacks no state itself: it waits for an event that it builds on, or for its turn`);
  }
  // What is known of the room without the dropped event rests on our join's full state.
  if (partial.size > 1) throw notDroppable(`the state before our join ${joinEventId} is missing too, and comes first`);
}

function notPartial(message: string): MatrixError {
  return new MatrixError(409, "FASTJOIN.NOT_PARTIAL", message);
}

function notDroppable(message: string): MatrixError {
  return new MatrixError(409, "FASTJOIN.NOT_DROPPABLE", message);
}
