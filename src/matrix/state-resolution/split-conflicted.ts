import type { EventId } from "../identifiers.ts";
import { emptyState, stateDiff, stateGetByKey, stateOver } from "../state.ts";
import type { StateKey, StateMap } from "../state.ts";

export interface SplitState {
  /** What all state sets agree on. */
  readonly unconflicted: StateMap;
  /** The events of every key that they don't agree on, in no order that may be relied on. */
  readonly conflicted: ReadonlyMap<StateKey, ReadonlySet<EventId>>;
}

/**
 * Splits the union of the state sets into the unconflicted state map and the conflicted state set: a key is
 * unconflicted if every set has it with the same event. Takes time in proportion to what differs, where the sets share
 * a base.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function splitConflictedState(stateSets: readonly StateMap[]): SplitState {
  const [first, ...others] = stateSets;
  if (first === undefined) {
    return { unconflicted: emptyState, conflicted: new Map() };
  }
  const keys = new Set<StateKey>();
  for (const other of others) {
    for (const key of stateDiff(first, other).keys()) {
      keys.add(key);
    }
  }
  const conflicted = new Map<StateKey, ReadonlySet<EventId>>();
  for (const key of keys) {
    const ids = stateSets.map((state) => stateGetByKey(state, key)).filter((id) => id !== undefined);
    conflicted.set(key, new Set(ids));
  }
  const unconflicted = stateOver(
    first,
    [...keys].map((key) => [key, null] as const),
  );
  return { unconflicted, conflicted };
}

/** The conflicted state set alone: the events that a resolution of these states starts from. */
export function conflictedEventIds(stateSets: readonly StateMap[]): Set<EventId> {
  const { conflicted } = splitConflictedState(stateSets);
  return new Set([...conflicted.values()].flatMap((ids) => [...ids]));
}
