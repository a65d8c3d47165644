import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomsContext } from "../context.ts";
import { nextResyncStep, type ResyncStep, type ResyncTarget } from "./resync-next-step.ts";
import { repairEvents, type EventsRepaired } from "./resync-repair-events.ts";

/** In a room where so much happens that this is not enough, the workflow goes round once more. */
const MOST_ROUNDS = 20;

type AllRepaired = EventsRepaired & {
  /** Where it was asked for. */
  readonly next?: ResyncStep;
};

/**
 * Repairs events, and what has arrived on partial state meanwhile: in a busy room some message always comes between two
 * steps of a workflow, so that a resync which took one after the other would come to no end.
 *
 * @param onProgress told after each transaction
 */
export async function repairAll(
  ctx: RoomsContext,
  target: ResyncTarget,
  eventIds: readonly EventId[],
  onProgress?: () => void,
): Promise<AllRepaired> {
  let [count, rejectionsChanged] = [0, 0];
  let ids = eventIds;
  for (let round = 1; ; round += 1) {
    const repaired = await repairEvents(ctx, target, ids, onProgress);
    if (repaired.kind === "superseded") return repaired;
    count += repaired.count;
    rejectionsChanged += repaired.rejectionsChanged;
    const all: EventsRepaired = { kind: "repaired", count, rejectionsChanged };
    if (repaired.count === 0 || round === MOST_ROUNDS) return all;
    const step = await nextResyncStep(ctx, target);
    if (step.kind !== "repair") return { ...all, next: step };
    ids = step.eventIds;
  }
}
