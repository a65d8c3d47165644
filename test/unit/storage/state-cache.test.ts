import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stateApply, stateFromEntries, stateKeyOf, type StateMap } from "../../../src/matrix/state.ts";
import { createStateCache } from "../../../src/storage/state-cache.ts";

function aState(name: string, size: number): StateMap {
  const entries = Array.from({ length: size }, (_, index) => [stateKeyOf(name, `${index}`), `$${index}`] as const);
  return stateFromEntries(entries);
}

const topic = (state: StateMap, eventId: EventId): StateMap => stateApply(state, [[stateKeyOf("topic", ""), eventId]]);

describe("createStateCache", () => {
  it("counts a map once that many states share", () => {
    const cache = createStateCache(1_000);
    const base = aState("room", 900);
    cache.set(1n, base);
    for (let n = 2n; n < 30n; n += 1n) cache.set(n, topic(base, `$${n}`));
    expect(cache.get(1n)).toBe(base);
    expect(cache.get(2n)).toBeDefined();
  });

  it("lets go what nobody has asked for longest", () => {
    const cache = createStateCache(1_000);
    for (const n of [1n, 2n]) cache.set(n, aState("room", 450));
    cache.get(1n);
    cache.set(3n, aState("room", 450));
    expect([1n, 2n, 3n].map((n) => cache.get(n) !== undefined)).toEqual([true, false, true]);
  });

  it("keeps the state with which a map counts for as long as another one on it is used", () => {
    const cache = createStateCache(1_000);
    const base = aState("used", 450);
    cache.set(1n, base);
    cache.set(2n, topic(base, "$topic"));
    cache.set(3n, aState("idle", 450));
    cache.get(2n);
    cache.set(4n, aState("new", 450));
    expect([1n, 2n, 3n, 4n].map((n) => cache.get(n) !== undefined)).toEqual([true, true, false, true]);
  });

  it("counts a map again whose first state has gone", () => {
    const cache = createStateCache(1_000);
    const base = aState("room", 450);
    cache.set(1n, base);
    for (const n of [2n, 3n]) cache.set(n, aState("other", 450));
    expect(cache.get(1n)).toBeUndefined();
    cache.set(4n, topic(base, "$topic"));
    expect([2n, 3n, 4n].map((n) => cache.get(n) !== undefined)).toEqual([false, true, true]);
  });

  it("forgets a state with all that share its map, and no other", () => {
    const cache = createStateCache(1_000);
    const base = aState("room", 100);
    cache.set(1n, base);
    cache.set(2n, topic(base, "$topic"));
    cache.set(3n, aState("other", 100));
    cache.forget(2n);
    cache.forget(9n);
    expect([1n, 2n, 3n].map((n) => cache.get(n) !== undefined)).toEqual([false, false, true]);
  });

  it("keeps no state of more entries than it may hold", () => {
    const cache = createStateCache(1_000);
    cache.set(1n, aState("large", 1_000));
    expect(cache.get(1n)).toBeUndefined();
  });
});
