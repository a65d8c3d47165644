import type { EventId } from "../../matrix/identifiers.ts";
import { stateDiffInPortions, type StateKey, type StateMap } from "../../matrix/state.ts";
import { withPauses } from "../with-pauses.ts";

type Difference = ReadonlyMap<StateKey, EventId | null>;

/** Entries compared at a time, in some milliseconds. */
const PORTION = 5_000;

// States never change. As long as both are at hand, so is what they differ by: at most one a state.
const differences = new WeakMap<StateMap, WeakMap<StateMap, Difference>>();

/**
 * As {@link stateDiff}. Two states of a hundred thousand entries each are compared in portions, between which whoever
 * else the process serves gets its turn, and only once one after the other: what was compared before a room is locked
 * takes no time under its lock.
 */
export async function differenceOfStates(from: StateMap, to: StateMap): Promise<Difference> {
  const known = differences.get(from)?.get(to);
  if (known !== undefined) return known;
  const difference = await withPauses(stateDiffInPortions(from, to, PORTION));
  if (from.base !== to.base && from.size > 0) differences.set(from, new WeakMap([[to, difference]]));
  return difference;
}
