import { describe, expect, it } from "vitest";

import {
  emptyState,
  splitStateKey,
  stateApply,
  stateDiff,
  stateEntries,
  stateFromEntries,
  stateGet,
  stateKeyOf,
  stateSize,
  stateWith,
} from "../../../src/matrix/state.ts";
import type { StateMap } from "../../../src/matrix/state.ts";

const K = (name: string) => stateKeyOf("m.room.member", name);

function members(count: number): StateMap {
  return stateFromEntries(Array.from({ length: count }, (_, index) => [K(`@u${index}:x`), `$e${index}`] as const));
}

describe("stateKeyOf", () => {
  it("joins type and state key by U+001F", () => {
    expect(stateKeyOf("m.room.member", "@a:x")).toBe("m.room.member\u001f@a:x");
  });

  it("keeps apart what a plain join would confuse", () => {
    expect(stateKeyOf("a\u001fb", "c")).not.toBe(stateKeyOf("a", "b\u001fc"));
    expect(stateKeyOf("a\u001e1b", "")).not.toBe(stateKeyOf("a\u001fb", ""));
  });

  it.each([
    ["m.room.topic", ""],
    ["a\u001fb\u001ec\u001e1\u001e0", "d\u001fe\u001ef"],
    ["", ""],
    ["\u001f", "\u001f"],
  ])("is undone by splitStateKey (%j, %j)", (type, stateKey) => {
    expect(splitStateKey(stateKeyOf(type, stateKey))).toEqual([type, stateKey]);
  });
});

describe("stateWith", () => {
  it("leaves the state it was made from alone", () => {
    const before = stateWith(emptyState, "m.room.topic", "", "$one");
    const after = stateWith(before, "m.room.topic", "", "$two");
    expect(stateGet(before, "m.room.topic", "")).toBe("$one");
    expect(stateGet(after, "m.room.topic", "")).toBe("$two");
    expect([stateSize(before), stateSize(after)]).toEqual([1, 1]);
  });
});

describe("stateApply", () => {
  it("takes an entry away by null, and puts it back", () => {
    const full = members(3);
    const less = stateApply(full, [[K("@u1:x"), null]]);
    expect(stateGet(less, "m.room.member", "@u1:x")).toBeUndefined();
    expect(stateSize(less)).toBe(2);
    expect([...stateEntries(less)].map(([, id]) => id)).toEqual(["$e0", "$e2"]);
    const again = stateApply(less, [[K("@u1:x"), "$e1"]]);
    expect(again.overlay.size).toBe(0);
    expect(stateDiff(again, full).size).toBe(0);
  });

  it("shares the base of a large state", () => {
    const full = members(10_000);
    const changed = stateApply(full, [[K("@new:x"), "$new"]]);
    expect(changed.base).toBe(full.base);
    expect(stateSize(changed)).toBe(10_001);
  });

  it("gives a long history of changes a base of its own", () => {
    let state = members(10);
    for (let index = 0; index < 1000; index += 1) {
      state = stateWith(state, "m.room.member", `@v${index}:x`, `$v${index}`);
    }
    expect(state.overlay.size).toBeLessThan(300);
    expect(stateSize(state)).toBe(1010);
    expect(new Set([...stateEntries(state)].map(([key]) => key)).size).toBe(1010);
  });

  it("lets the last of several changes of a key win", () => {
    const state = stateApply(members(1), [
      [K("@u0:x"), null],
      [K("@u0:x"), "$again"],
      [K("@gone:x"), "$x"],
      [K("@gone:x"), null],
    ]);
    expect([...stateEntries(state)]).toEqual([[K("@u0:x"), "$again"]]);
    expect(stateSize(state)).toBe(1);
  });
});

describe("stateDiff", () => {
  it("says what to apply to get from one state to the other, whether they share a base or not", () => {
    const from = stateApply(members(5), [[K("@u0:x"), "$changed"]]);
    const to = stateApply(members(5), [
      [K("@u1:x"), null],
      [K("@w:x"), "$w"],
    ]);
    const sharing = stateApply(from, [
      [K("@u0:x"), "$e0"],
      [K("@u1:x"), null],
      [K("@w:x"), "$w"],
    ]);
    expect(sharing.base).toBe(from.base);
    const expected = new Map<string, string | null>([
      [K("@u0:x"), "$e0"],
      [K("@u1:x"), null],
      [K("@w:x"), "$w"],
    ]);
    expect(stateDiff(from, to)).toEqual(expected);
    expect(stateDiff(from, sharing)).toEqual(expected);
    expect(stateDiff(stateApply(from, stateDiff(from, to)), to).size).toBe(0);
  });

  it("looks at the overlays only where the base is shared", () => {
    const full = members(200_000);
    const one = stateWith(full, "m.room.topic", "", "$topic");
    // As many looks at the whole base would take longer than any test may.
    let changes = 0;
    for (let round = 0; round < 20_000; round += 1) changes += stateDiff(full, one).size;
    expect(changes).toBe(20_000);
  });
});
