import type { RoomsContext } from "../src/rooms/context.ts";
import { atStep, type Step } from "../src/rooms/failpoints.ts";
import { withHeartbeat } from "./heartbeat.ts";

/** Does an activity with heartbeats; its last failpoint stands between what it has done and Temporal's hearing of it. */
export async function acting<T>(
  ctx: RoomsContext,
  step: Step,
  work: (signal: AbortSignal, note: (details: unknown) => void) => Promise<T>,
): Promise<T> {
  return await withHeartbeat((signal, note) => atStep(ctx, step, () => work(signal, note)));
}
