import type { EventId } from "../identifiers.ts";
import { splitStateKey, stateApply, stateEntries, stateGetByKey, stateSize } from "../state.ts";
import type { StateKey, StateMap } from "../state.ts";

/**
 * States of a partially joined room as they can be resolved with each other: a membership that one of them lacks was
 * never told there, which is not the same as nobody having it. So it is taken from the state that knows most. Without
 * this each of the thousands of memberships that only a concurrent event's full state holds would be a conflict.
 *
 * The answer approximates, as all of partial state does; states that are full are resolved as they are.
 *
 * @returns the states in their order, all but the largest one filled up; they share its base, so that their differences
 *   are cheap to find
 */
export function withOmittedMembers(states: readonly StateMap[]): readonly StateMap[] {
  const [largest] = states.toSorted((a, b) => stateSize(b) - stateSize(a));
  if (largest === undefined) return states;
  return states.map((state) => (state.base === largest.base ? state : filledFrom(largest, state)));
}

/** The largest state with what the other says of each key, but for the members that it is silent on. */
function filledFrom(largest: StateMap, state: StateMap): StateMap {
  const changes: [StateKey, EventId | null][] = [];
  for (const [key, eventId] of stateEntries(state)) {
    if (stateGetByKey(largest, key) !== eventId) changes.push([key, eventId]);
  }
  for (const [key] of stateEntries(largest)) {
    if (!isMember(key) && stateGetByKey(state, key) === undefined) changes.push([key, null]);
  }
  return changes.length === 0 ? largest : stateApply(largest, changes);
}

function isMember(key: StateKey): boolean {
  return splitStateKey(key)[0] === "m.room.member";
}
