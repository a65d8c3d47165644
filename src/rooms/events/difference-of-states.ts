import type { EventId } from "../../matrix/identifiers.ts";
import { stateDiffInPortions, stateGetByKey, stateOfMap, type StateKey, type StateMap } from "../../matrix/state.ts";
import { withPauses } from "../with-pauses.ts";

type Difference = ReadonlyMap<StateKey, EventId | null>;

/** Entries compared at a time, in some milliseconds. */
const PORTION = 5_000;

// States never change, nor do their bases. As long as both are at hand, so is what they differ by: at most one a state.
const differences = new WeakMap<StateMap, WeakMap<StateMap, Difference>>();
const ofBases = new WeakMap<StateMap["base"], WeakMap<StateMap["base"], Difference>>();

/**
 * As {@link stateDiff}. Two states of a hundred thousand entries each are compared in portions, between which whoever
 * else the process serves gets its turn, and only once one after the other: what was compared before a room is locked,
 * be it with a state of a few changes less, takes no time under its lock.
 */
export async function differenceOfStates(from: StateMap, to: StateMap): Promise<Difference> {
  if (from.base === to.base || from.size === 0) return await withPauses(stateDiffInPortions(from, to, PORTION));
  const known = differences.get(from)?.get(to);
  if (known !== undefined) return known;
  const difference = new Map(await differenceOfBases(from.base, to.base));
  for (const key of [...from.overlay.keys(), ...to.overlay.keys()]) {
    const target = stateGetByKey(to, key);
    if (target === stateGetByKey(from, key)) difference.delete(key);
    else difference.set(key, target ?? null);
  }
  differences.set(from, new WeakMap([[to, difference]]));
  return difference;
}

async function differenceOfBases(from: StateMap["base"], to: StateMap["base"]): Promise<Difference> {
  const known = ofBases.get(from)?.get(to);
  if (known !== undefined) return known;
  const difference = await withPauses(stateDiffInPortions(stateOfMap(from), stateOfMap(to), PORTION));
  ofBases.set(from, new WeakMap([[to, difference]]));
  return difference;
}
