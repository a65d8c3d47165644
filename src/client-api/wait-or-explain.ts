import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomId } from "../matrix/identifiers.ts";
import { FullStateMissing } from "../rooms/read/full-state-wait.ts";
import type { ClientApiContext } from "./context.ts";

/** When a client whose look-up has waited in vain may ask again. It waits again then, so this may be short. */
const RETRY_AFTER_MS = 5_000;

/**
 * Does a look-up that may have to wait for the full state.
 *
 * @throws MatrixError 503 FASTJOIN.PARTIAL_STATE with `retry_after_ms` and the resync's `progress`
 */
export async function waitOrExplain<T>(ctx: ClientApiContext, roomId: RoomId, lookUp: () => Promise<T>): Promise<T> {
  try {
    return await lookUp();
  } catch (error) {
    if (!(error instanceof FullStateMissing)) {
      throw error;
    }
    const progress = await ctx.resyncProgress(roomId);
    throw new MatrixError(503, "FASTJOIN.PARTIAL_STATE", error.message, {
      retry_after_ms: RETRY_AFTER_MS,
      ...(progress === undefined ? {} : { progress }),
    });
  }
}
