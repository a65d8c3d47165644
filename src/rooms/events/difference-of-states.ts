import type { EventId } from "../../matrix/identifiers.ts";
import { stateDiffInPortions, stateGetByKey, stateOfMap, type StateKey, type StateMap } from "../../matrix/state.ts";
import { ENTRIES_BETWEEN_PAUSES, withPauses } from "../with-pauses.ts";

type Difference = ReadonlyMap<StateKey, EventId | null>;

/** What two states, or their bases, differ by, which never change. */
interface Compared<Of extends WeakKey> {
  readonly from: WeakRef<Of>;
  readonly to: WeakRef<Of>;
  readonly difference: Difference;
}

// The last ones only, each of which may be as large as a state: what is compared before a room is locked is asked for
// under its lock, and of the bases as long as the room's states stand on them.
let lastStates: Compared<StateMap> | undefined;
let lastBases: Compared<StateMap["base"]> | undefined;

function known<Of extends WeakKey>(last: Compared<Of> | undefined, from: Of, to: Of): Difference | undefined {
  return last?.from.deref() === from && last.to.deref() === to ? last.difference : undefined;
}

/**
 * As {@link stateDiff}. Two states of a hundred thousand entries each are compared in portions, between which whoever
 * else the process serves gets its turn, and only once one after the other: what was compared before a room is locked,
 * be it with a state of a few changes less, takes no time under its lock.
 */
export async function differenceOfStates(from: StateMap, to: StateMap): Promise<Difference> {
  if (from.base === to.base || from.size === 0)
    return await withPauses(stateDiffInPortions(from, to, ENTRIES_BETWEEN_PAUSES));
  const same = known(lastStates, from, to);
  if (same !== undefined) return same;
  const difference = new Map(await differenceOfBases(from.base, to.base));
  for (const key of [...from.overlay.keys(), ...to.overlay.keys()]) {
    const target = stateGetByKey(to, key);
    if (target === stateGetByKey(from, key)) difference.delete(key);
    else difference.set(key, target ?? null);
  }
  lastStates = { from: new WeakRef(from), to: new WeakRef(to), difference };
  return difference;
}

async function differenceOfBases(from: StateMap["base"], to: StateMap["base"]): Promise<Difference> {
  const same = known(lastBases, from, to);
  if (same !== undefined) return same;
  const difference = await withPauses(stateDiffInPortions(stateOfMap(from), stateOfMap(to), ENTRIES_BETWEEN_PAUSES));
  lastBases = { from: new WeakRef(from), to: new WeakRef(to), difference };
  return difference;
}
