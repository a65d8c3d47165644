import { LRUCache } from "lru-cache";
import type { StateMap } from "../matrix/state.ts";

/** States of snapshots, the least recently used of which make room for others. */
export interface StateCache {
  get(snapshotId: bigint): StateMap | undefined;
  set(snapshotId: bigint, state: StateMap): void;
  /** Lets go of the state and of all that share its map. */
  forget(snapshotId: bigint): void;
}

/**
 * Many states share a map, which counts with the first of them that comes; the others count for what is their own. As
 * long as any of these is used that one stays too: a map that nobody counts would be held all the same.
 *
 * @param maxEntries of states, about 200 bytes each; a state of more is not kept
 */
export function createStateCache(maxEntries: number): StateCache {
  const states = new LRUCache<bigint, StateMap>({ maxSize: maxEntries, maxEntrySize: maxEntries });
  const countedWith = new WeakMap<StateMap["base"], bigint>();

  /** The snapshot with which the map counts, which is used by that. */
  function counting(base: StateMap["base"]): bigint | undefined {
    const snapshotId = countedWith.get(base);
    return snapshotId !== undefined && states.get(snapshotId)?.base === base ? snapshotId : undefined;
  }

  return {
    get(snapshotId) {
      const state = states.get(snapshotId);
      if (state !== undefined) counting(state.base);
      return state;
    },
    set(snapshotId, state) {
      const other = counting(state.base);
      const countsWhole = other === undefined || other === snapshotId;
      if (countsWhole) countedWith.set(state.base, snapshotId);
      states.set(snapshotId, state, { size: (countsWhole ? state.size : state.overlay.size) + 1 });
    },
    forget(snapshotId) {
      const base = states.peek(snapshotId)?.base;
      const sharing = [...states.entries()].filter(([, state]) => state.base === base);
      for (const [other] of sharing) states.delete(other);
    },
  };
}
