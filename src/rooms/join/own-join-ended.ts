import { setTimeout as sleep } from "node:timers/promises";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { isUserJoining } from "../../storage/joins-under-way.ts";
import type { RoomsContext } from "../context.ts";

/** A client waits about so long for an answer; a join may try server after server for longer. */
const MOST_WAIT_MS = 30_000;
const LOOK_AGAIN_MS = 50;

/**
 * Waits until no join of the user to the room is under way, in whichever process. Whoever leaves means the join too
 * that has not been answered yet: before its end there would be nothing to leave, or an invitation to decline that the
 * resident server has already seen taken up.
 *
 * @returns false if none was under way
 */
export async function ownJoinEnded(ctx: RoomsContext, roomId: RoomId, userId: UserId): Promise<boolean> {
  const deadline = performance.now() + MOST_WAIT_MS;
  let waited = false;
  while (performance.now() < deadline && (await isUserJoining(ctx.database.pool, roomId, userId))) {
    waited = true;
    await sleep(LOOK_AGAIN_MS);
  }
  return waited;
}
