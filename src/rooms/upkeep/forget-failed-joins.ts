import { deleteEarlyOutliers, forgetEarlyOutliersOfEnteredRooms } from "../../storage/early-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { doNowAndThen, type Upkeep } from "./do-now-and-then.ts";

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

/** Does so every few seconds: no client has to wait for it. */
export function startForgettingFailedJoins(ctx: RoomsContext): Upkeep {
  return doNowAndThen((mayGoOn) => forgetFailedJoins(ctx, mayGoOn), {
    everyMs: LOOK_EVERY_MS,
    logger: ctx.logger,
    failure: "could not delete what failed joins have left; tried again",
  });
}
