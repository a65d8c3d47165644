import type { RoomId } from "../../matrix/identifiers.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import type { RoomsContext } from "../context.ts";
import type { StreamWaiter } from "./stream-waiter.ts";

/** What look-ups need that may have to wait. */
export interface ReadContext extends RoomsContext {
  readonly stream: StreamWaiter;
}

/** The room's state is still partial after the time that a look-up waits. */
export class FullStateMissing extends Error {
  override readonly name = "FullStateMissing";
  readonly code = "rooms.full-state-missing";
  readonly roomId: RoomId;

  constructor(roomId: RoomId) {
    super(`Not all of the state of ${roomId} is known yet: it is being fetched from other servers`);
    this.roomId = roomId;
  }
}

/** A room that is left while we wait loses its row without anything for the stream. */
const LOOK_AGAIN_MS = 5_000;

/**
 * Waits until the room has no row in `partial_state_rooms`, for at most `ctx.fullStateWaitMs`. A room that is not
 * partial costs one query.
 *
 * @param signal ends the wait early, with its reason, when the client has gone
 * @throws FullStateMissing
 */
export async function waitForFullState(ctx: ReadContext, roomId: RoomId, signal?: AbortSignal): Promise<void> {
  if ((await partialRoom(ctx.database.pool, roomId)) === undefined) {
    return;
  }
  const deadline = performance.now() + ctx.fullStateWaitMs;
  for (;;) {
    const position = await ctx.stream.current();
    if ((await partialRoom(ctx.database.pool, roomId)) === undefined) {
      return;
    }
    const timeLeft = deadline - performance.now();
    if (timeLeft <= 0) {
      throw new FullStateMissing(roomId);
    }
    await ctx.stream.past(position, {
      timeoutMs: Math.min(timeLeft, LOOK_AGAIN_MS),
      ...(signal === undefined ? {} : { signal }),
    });
  }
}
