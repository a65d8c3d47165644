import { FederationFailure } from "../../federation-client/failures.ts";
import type { RoomsContext } from "../context.ts";
import { fillGap } from "../fetch/fill-gap.ts";
import { missingPrevEvents } from "../fetch/missing-prev-events.ts";
import type { JoinAnswer } from "./send-join.ts";

/**
 * Where a second user's join builds on events that we lack, the state of its answer has stood in for them. What lies
 * between is asked for like any gap: else its events would be missing from the timeline, and those that we have would
 * stay forward extremities beside the join. Never fails: the next event of ours joins the ends in any case.
 */
export async function fillGapBeforeJoin(ctx: RoomsContext, { server, join, rules }: JoinAnswer): Promise<void> {
  try {
    const missing = await missingPrevEvents(ctx, join);
    if (missing.length > 0) await fillGap(ctx, { origin: server, rules, event: join, missing });
  } catch (error) {
    const level = error instanceof FederationFailure ? "info" : "error";
    ctx.logger[level]({ err: error, roomId: join.roomId, server }, "the gap before a join could not be filled");
  }
}
