import { fetchOutcome } from "../../activities/fetch-outcome.ts";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { finishResync } from "../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep, type ResyncStep, type ResyncTarget } from "../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../src/rooms/resync/resync-repair-events.ts";
import { serversForResync } from "../../src/rooms/resync/resync-servers.ts";

/** More steps than any test's room needs: a resync that does not end is an error. */
const MOST_STEPS = 200;

export type ResyncEnd = "completed" | "superseded" | "left" | "stopped";

/**
 * The use cases of the resync in the order of the workflow's loop, without Temporal and without waiting.
 *
 * @param stopBefore the step that is not done any more
 */
export async function driveResync(
  ctx: RoomsContext,
  roomId: RoomId,
  joinEventId: EventId,
  stopBefore: (step: ResyncStep) => boolean = () => false,
): Promise<ResyncEnd> {
  const target: ResyncTarget = { roomId, joinEventId };
  for (let steps = 0; steps < MOST_STEPS; steps += 1) {
    const step = await nextResyncStep(ctx, target);
    if (stopBefore(step)) return "stopped";
    switch (step.kind) {
      case "completed":
      case "superseded":
      case "left":
        return step.kind;
      case "fetch":
        for (const eventId of step.eventIds) await fetchFromAny(ctx, target, eventId);
        break;
      case "repair":
        await repairEvents(ctx, target, step.eventIds);
        break;
      case "finish": {
        const finished = await finishResync(ctx, target);
        if (finished.kind !== "more") return finished.kind;
      }
    }
  }
  throw new Error(`the resync of ${roomId} did not end in ${MOST_STEPS} steps`);
}

async function fetchFromAny(ctx: RoomsContext, target: ResyncTarget, eventId: EventId): Promise<void> {
  const failures: string[] = [];
  for (const server of await serversForResync(ctx, target)) {
    const outcome = await fetchOutcome(ctx, { ...target, eventId, server });
    if (outcome.kind !== "failed") return;
    failures.push(`${server}: ${outcome.cause}: ${outcome.detail}`);
  }
  throw new Error(`no server had the state at ${eventId}: ${failures.join("; ")}`);
}
