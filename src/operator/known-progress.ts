import type { ResyncPhase, ServerStanding } from "../../workflows/contract.ts";
import type { RoomId } from "../matrix/identifiers.ts";
import { countPartialEvents } from "../storage/partial-state.ts";
import type { OperatorContext } from "./context.ts";

/** As much of a resync's progress as can be told. */
export interface KnownProgress {
  readonly phase?: ResyncPhase;
  readonly partialEvents: number;
  readonly idsLeft?: number;
  readonly servers?: readonly ServerStanding[];
}

/**
 * The progress as a worker tells it; else what the workflow last told Temporal, which keeps it; and without Temporal
 * what the database knows.
 */
export async function knownProgress(ctx: OperatorContext, roomId: RoomId): Promise<KnownProgress> {
  const workflow = await ctx.workflows.standing(roomId);
  if (workflow.state === "running" && workflow.progress !== undefined) {
    const { missingStates: _forOperators, ...progress } = workflow.progress;
    return progress;
  }
  const { missingStates: _forOperators, ...lastKnown } =
    (workflow.state === "running" ? workflow.lastKnown : undefined) ?? {};
  return { ...lastKnown, partialEvents: await countPartialEvents(ctx.database.pool, roomId) };
}
