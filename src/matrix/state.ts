import type { EventId } from "./identifiers.ts";

/**
 * The type and the state key of a state event in one string, so that it can be a key of a map: made by
 * {@link stateKeyOf}, taken apart by {@link splitStateKey}.
 */
export type StateKey = string;

/**
 * The state of a room at one point: which event holds each (type, state key).
 *
 * Immutable. The states of a room's events differ from each other by a few entries out of tens of thousands, so a
 * state is a base map that many states share and a small overlay of its own; in the overlay null means "not in this
 * state, though in the base".
 */
export interface StateMap {
  readonly base: ReadonlyMap<StateKey, EventId>;
  /** Holds only what differs from `base`: two states on one base are equal exactly if their overlays are. */
  readonly overlay: ReadonlyMap<StateKey, EventId | null>;
  readonly size: number;
}

const SEPARATOR = "\u001f";
const ESCAPE = "\u001e";

/** `type`, U+001F, `stateKey`. Only a type that itself holds U+001E or U+001F (none of the specification does) is escaped. */
export function stateKeyOf(type: string, stateKey: string): StateKey {
  if (!type.includes(SEPARATOR) && !type.includes(ESCAPE)) {
    return type + SEPARATOR + stateKey;
  }
  return type.replaceAll(ESCAPE, `${ESCAPE}0`).replaceAll(SEPARATOR, `${ESCAPE}1`) + SEPARATOR + stateKey;
}

/** The inverse of {@link stateKeyOf}. */
export function splitStateKey(key: StateKey): readonly [type: string, stateKey: string] {
  const separator = key.indexOf(SEPARATOR);
  const type = key.slice(0, separator);
  const stateKey = key.slice(separator + 1);
  if (!type.includes(ESCAPE)) {
    return [type, stateKey];
  }
  return [type.replaceAll(`${ESCAPE}1`, SEPARATOR).replaceAll(`${ESCAPE}0`, ESCAPE), stateKey];
}

const EMPTY: ReadonlyMap<StateKey, EventId> = new Map();

export const emptyState: StateMap = { base: EMPTY, overlay: EMPTY, size: 0 };

/** The last of several entries with one key wins. */
export function stateFromEntries(entries: Iterable<readonly [StateKey, EventId]>): StateMap {
  const base = new Map(entries);
  return { base, overlay: EMPTY, size: base.size };
}

/** The same of entries that are in a map already, which must not change any more. */
export function stateOfMap(base: ReadonlyMap<StateKey, EventId>): StateMap {
  return { base, overlay: EMPTY, size: base.size };
}

/** As {@link stateGet}, for a key that is already made. */
export function stateGetByKey(state: StateMap, key: StateKey): EventId | undefined {
  if (state.overlay.size > 0) {
    const own = state.overlay.get(key);
    if (own !== undefined) {
      return own ?? undefined;
    }
  }
  return state.base.get(key);
}

export function stateGet(state: StateMap, type: string, stateKey: string): EventId | undefined {
  return stateGetByKey(state, stateKeyOf(type, stateKey));
}

export function stateWith(state: StateMap, type: string, stateKey: string, eventId: EventId): StateMap {
  return stateApply(state, [[stateKeyOf(type, stateKey), eventId]]);
}

/**
 * Beyond this size an overlay becomes a base of its own: copying overlays of this size and, every so many changes, a
 * whole base cost about the same.
 */
function largestOverlay(baseSize: number): number {
  return 64 + 4 * Math.sqrt(baseSize);
}

/** The state with the changes made in their order; null takes an entry away. */
export function stateApply(state: StateMap, changes: Iterable<readonly [StateKey, EventId | null]>): StateMap {
  const next = stateOver(state, changes);
  return next.overlay.size > largestOverlay(state.base.size) ? stateFromEntries(stateEntries(next)) : next;
}

/** The same on the same base, however much differs from it: for a state that is soon thrown away. */
export function stateOver(state: StateMap, changes: Iterable<readonly [StateKey, EventId | null]>): StateMap {
  const overlay = new Map(state.overlay);
  let size = state.size;
  for (const [key, eventId] of changes) {
    const inBase = state.base.get(key);
    const before = overlay.get(key);
    const wasThere = before === undefined ? inBase !== undefined : before !== null;
    size += Number(eventId !== null) - Number(wasThere);
    if (eventId === (inBase ?? null)) {
      overlay.delete(key);
    } else {
      overlay.set(key, eventId);
    }
  }
  return { base: state.base, overlay, size };
}

export function stateSize(state: StateMap): number {
  return state.size;
}

/** All entries, in no order that may be relied on. */
export function* stateEntries(state: StateMap): Iterable<[StateKey, EventId]> {
  for (const [key, eventId] of state.base) {
    const own = state.overlay.get(key);
    if (own !== null) {
      yield [key, own ?? eventId];
    }
  }
  for (const [key, eventId] of state.overlay) {
    if (eventId !== null && !state.base.has(key)) {
      yield [key, eventId];
    }
  }
}

/**
 * What must be applied to `from` to get `to`; null for an entry that goes away. Takes time in proportion to the
 * overlays where both states share a base or one is empty, to the states otherwise.
 */
export function stateDiff(from: StateMap, to: StateMap): ReadonlyMap<StateKey, EventId | null> {
  const work = stateDiffInPortions(from, to, Number.POSITIVE_INFINITY);
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
  }
}

/** The same, with a pause whenever so many entries have been compared. */
export function* stateDiffInPortions(
  from: StateMap,
  to: StateMap,
  portion: number,
): Generator<void, ReadonlyMap<StateKey, EventId | null>> {
  if (from.base === to.base) {
    return diffAt(from, to, [from.overlay.keys(), to.overlay.keys()]);
  }
  if (from.size === 0 && to.overlay.size === 0) {
    return to.base;
  }
  const diff = new Map<StateKey, EventId | null>();
  let compared = 0;
  for (const [key, eventId] of stateEntries(from)) {
    const target = stateGetByKey(to, key);
    if (target !== eventId) diff.set(key, target ?? null);
    if ((compared += 1) % portion === 0) yield;
  }
  for (const [key, eventId] of stateEntries(to)) {
    if (stateGetByKey(from, key) === undefined) diff.set(key, eventId);
    if ((compared += 1) % portion === 0) yield;
  }
  return diff;
}

function diffAt(
  from: StateMap,
  to: StateMap,
  keys: readonly Iterable<StateKey>[],
): ReadonlyMap<StateKey, EventId | null> {
  const diff = new Map<StateKey, EventId | null>();
  for (const some of keys) {
    for (const key of some) {
      const target = stateGetByKey(to, key);
      if (target !== stateGetByKey(from, key)) diff.set(key, target ?? null);
    }
  }
  return diff;
}
