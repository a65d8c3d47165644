import { deleteEarlyOutliers, forgetEarlyOutliersOfEnteredRooms } from "../../storage/early-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { createWakeUp } from "../wake-up.ts";

const LOOK_EVERY_MS = 5_000;

/**
 * Deletes what large answers to failed joins have left of rooms that we did not enter, a chunk at a time. What is under
 * way when the process dies is found again.
 */
export async function forgetFailedJoins(ctx: RoomsContext, mayGoOn: () => boolean = () => true): Promise<void> {
  await forgetEarlyOutliersOfEnteredRooms(ctx.database.pool);
  let more = true;
  while (more && mayGoOn()) more = await deleteEarlyOutliers(ctx.database);
}

interface ForgettingFailedJoins {
  /** Waits for what is under way. */
  stop(): Promise<void>;
}

/** Does so now and then every few seconds: no client has to wait for it. */
export function startForgettingFailedJoins(ctx: RoomsContext): ForgettingFailedJoins {
  const bell = createWakeUp();
  let stopping = false;
  async function keepForgetting(): Promise<void> {
    while (!stopping) {
      try {
        await forgetFailedJoins(ctx, () => !stopping);
      } catch (error) {
        ctx.logger.warn({ err: error }, "could not delete what failed joins have left; tried again");
      }
      await bell.sleep(LOOK_EVERY_MS);
    }
  }
  const done = keepForgetting();
  return {
    async stop() {
      stopping = true;
      bell.ring();
      await done;
    },
  };
}
