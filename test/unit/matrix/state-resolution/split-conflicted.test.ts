import { describe, expect, it } from "vitest";

import { conflictedEventIds, splitConflictedState } from "../../../../src/matrix/state-resolution/split-conflicted.ts";
import { emptyState, stateApply, stateEntries, stateFromEntries } from "../../../../src/matrix/state.ts";
import type { StateMap } from "../../../../src/matrix/state.ts";

const state = (entries: Readonly<Record<string, string>>): StateMap =>
  stateFromEntries(Object.entries(entries).map(([key, id]) => [key, `$${id}`] as const));

function split(...states: readonly StateMap[]) {
  const { unconflicted, conflicted } = splitConflictedState(states);
  return {
    unconflicted: Object.fromEntries(stateEntries(unconflicted)),
    conflicted: Object.fromEntries([...conflicted].map(([key, ids]) => [key, [...ids].sort()])),
  };
}

describe("splitConflictedState", () => {
  it("finds no conflict in no state, one state, or equal states", () => {
    const one = state({ a: "1", b: "2" });
    expect(split()).toEqual({ unconflicted: {}, conflicted: {} });
    expect(split(one)).toEqual({ unconflicted: { a: "$1", b: "$2" }, conflicted: {} });
    expect(split(one, state({ b: "2", a: "1" }))).toEqual({ unconflicted: { a: "$1", b: "$2" }, conflicted: {} });
  });

  it("takes a key for conflicted where values differ, or where a state lacks it", () => {
    const states = [state({ a: "1", b: "2", c: "3" }), state({ a: "1", b: "9" }), state({ a: "1", b: "2", d: "4" })];
    const expected = { unconflicted: { a: "$1" }, conflicted: { b: ["$2", "$9"], c: ["$3"], d: ["$4"] } };
    expect(split(...states)).toEqual(expected);
    expect(split(...states.toReversed())).toEqual(expected);
    expect(split(emptyState, ...states).unconflicted).toEqual({});
  });

  it("does the same for states on one base, which the unconflicted state then shares", () => {
    const base = stateFromEntries(Array.from({ length: 1000 }, (_, index) => [`k${index}`, `$${index}`] as const));
    const one = stateApply(base, [["k1", "$x"]]);
    const other = stateApply(base, [["k2", null]]);
    const { unconflicted, conflicted } = splitConflictedState([one, other]);
    expect(unconflicted.base).toBe(base.base);
    expect(unconflicted.size).toBe(998);
    expect([...conflicted.keys()].sort()).toEqual(["k1", "k2"]);
  });
});

describe("conflictedEventIds", () => {
  it("is the conflicted state set", () => {
    const ids = conflictedEventIds([state({ a: "1", b: "2", c: "3" }), state({ a: "1", b: "9" })]);
    expect([...ids].sort()).toEqual(["$2", "$3", "$9"]);
  });
});
