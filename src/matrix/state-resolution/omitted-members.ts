import type { EventId } from "../identifiers.ts";
import { splitStateKey, stateApply, stateEntries, stateGetByKey, stateSize } from "../state.ts";
import type { StateKey, StateMap } from "../state.ts";

/**
 * States of a partially joined room as they can be resolved with each other: a membership that one of them lacks was
 * never told there, which is not the same as nobody having it. So it is taken from the others. Without this each of the
 * thousands of memberships that only a concurrent event's full state holds would be a conflict, and a join since ours,
 * of which that state knows nothing, would have to be allowed once more by rules that may have changed since.
 *
 * The answer approximates, as all of partial state does; states that are full are resolved as they are.
 *
 * @returns the states in their order, filled up; all share one base, so that their differences are cheap to find
 */
export function withOmittedMembers(states: readonly StateMap[]): readonly StateMap[] {
  const [largest] = states.toSorted((a, b) => stateSize(b) - stateSize(a));
  if (largest === undefined || states.length === 1) return states;
  const all = stateApply(largest, membersBeyond(largest, states));
  return states.map((state) => (state === largest ? all : filledFrom(all, state)));
}

/** The members that only others have; of whom they say different things, which then is a conflict. */
function membersBeyond(largest: StateMap, states: readonly StateMap[]): readonly (readonly [StateKey, EventId])[] {
  const members = new Map<StateKey, EventId>();
  for (const state of states) {
    if (state === largest) continue;
    // On one base, the other may also have what the largest has dropped of it.
    const isOneBase = state.base === largest.base;
    const differing = isOneBase ? [...state.overlay.keys(), ...largest.overlay.keys()] : keysOf(state);
    for (const key of differing) {
      const eventId = stateGetByKey(state, key);
      if (eventId !== undefined && isMember(key) && stateGetByKey(largest, key) === undefined)
        members.set(key, eventId);
    }
  }
  return [...members];
}

function keysOf(state: StateMap): readonly StateKey[] {
  return [...stateEntries(state)].map(([key]) => key);
}

/** The state that knows most with what the other says of each key, but for the members that the other is silent on. */
function filledFrom(all: StateMap, state: StateMap): StateMap {
  const changes: [StateKey, EventId | null][] = [];
  const differing = state.base === all.base ? new Set([...state.overlay.keys(), ...all.overlay.keys()]) : undefined;
  for (const key of differing ?? keysOf(state)) {
    const eventId = stateGetByKey(state, key);
    if (eventId !== undefined && stateGetByKey(all, key) !== eventId) changes.push([key, eventId]);
  }
  for (const key of differing ?? keysOf(all)) {
    if (!isMember(key) && stateGetByKey(state, key) === undefined) changes.push([key, null]);
  }
  return changes.length === 0 ? all : stateApply(all, changes);
}

function isMember(key: StateKey): boolean {
  return splitStateKey(key)[0] === "m.room.member";
}
