import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  stateApply,
  stateDiff,
  stateDiffInPortions,
  stateEntries,
  stateFromEntries,
  stateGetByKey,
  stateKeyOf,
  stateOver,
  type StateKey,
  type StateMap,
} from "../../src/matrix/state.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { differenceOfStates } from "../../src/rooms/events/difference-of-states.ts";
import { separateUnknown } from "../../src/rooms/events/news-for-clients.ts";
import { runs } from "../support/fuzz.ts";

const key = fc.oneof(
  fc.nat(12).map((number) => stateKeyOf("m.room.member", `@u${number}:${number % 3 === 0 ? "ours" : "theirs"}`)),
  fc.constantFrom("m.room.topic", "m.room.create").map((type) => stateKeyOf(type, "")),
);
const eventId: fc.Arbitrary<EventId> = fc.constantFrom("$e0", "$e1", "$e2", "$e3");
const entries = fc.array(fc.tuple(key, eventId), { maxLength: 20 });
const changes = fc.array(fc.tuple(key, fc.option(eventId)), { maxLength: 8 });

/** Two states, on one base or on two, of which one may be empty. */
const states: fc.Arbitrary<readonly [StateMap, StateMap]> = fc
  .record({ one: entries, other: fc.option(entries), ofOne: changes, ofOther: changes })
  .map(({ one, other, ofOne, ofOther }) => {
    const base = stateFromEntries(one);
    return [stateOver(base, ofOne), stateOver(other === null ? base : stateFromEntries(other), ofOther)];
  });

function sorted(difference: ReadonlyMap<StateKey, string | null>): readonly (readonly [StateKey, string | null])[] {
  return [...difference].toSorted(([one], [other]) => (one < other ? -1 : 1));
}

/** Key by key, over all that there are. */
function comparedByKey(from: StateMap, to: StateMap): ReadonlyMap<StateKey, string | null> {
  const keys = new Set([...stateEntries(from), ...stateEntries(to)].map(([one]) => one));
  return new Map(
    [...keys].flatMap((one) => {
      const target = stateGetByKey(to, one);
      return target === stateGetByKey(from, one) ? [] : [[one, target ?? null] as const];
    }),
  );
}

function members(count: number, from = 0): StateMap {
  return stateFromEntries(
    Array.from({ length: count }, (_, index) => [
      stateKeyOf("m.room.member", `@u${index + from}:theirs`),
      `$${index + from}`,
    ]),
  );
}

describe("stateDiff", () => {
  it("is what a comparison key by key finds, in portions of any size too", () => {
    fc.assert(
      fc.property(states, fc.integer({ min: 1, max: 9 }), ([from, to], portion) => {
        const expected = sorted(comparedByKey(from, to));
        expect(sorted(stateDiff(from, to))).toEqual(expected);
        const work = stateDiffInPortions(from, to, portion);
        let step = work.next();
        while (step.done !== true) step = work.next();
        expect(sorted(step.value)).toEqual(expected);
        expect(stateDiff(stateApply(from, step.value), to).size).toBe(0);
      }),
      runs(300),
    );
  });
});

describe("differenceOfStates", () => {
  it("is the same, whatever either state was compared with before", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(states, { minLength: 1, maxLength: 3 }), async (pairs) => {
        const all = pairs.flat();
        for (const from of [...all, ...all]) {
          for (const to of all) {
            expect(sorted(await differenceOfStates(from, to))).toEqual(sorted(comparedByKey(from, to)));
          }
        }
      }),
      runs(100),
    );
  });

  it("lets others have their turn while it compares thousands, and compares them once", async () => {
    const [from, to] = [members(12_000), members(12_000, 6_000)];
    let turns = 0;
    const count = (): void => {
      turns += 1;
      next = setImmediate(count);
    };
    let next = setImmediate(count);
    const first = await differenceOfStates(from, to);
    clearImmediate(next);
    expect(first.size).toBe(12_000);
    // 24,000 entries, in portions of 5,000.
    expect(turns).toBe(4);
    expect(await differenceOfStates(from, to)).toBe(first);
  });
});

describe("separateUnknown", () => {
  it("takes apart members of other servers that the state before did not know, and nothing else", async () => {
    await fc.assert(
      fc.asyncProperty(states, async ([previous, current]) => {
        const change = { previous, changes: stateDiff(previous, current) };
        const { unknown, others } = await separateUnknown({ serverName: "ours" }, change);
        const again = new Map<StateKey, string | null>(others);
        for (const [userId, id] of unknown) {
          expect(userId.endsWith(":theirs")).toBe(true);
          expect(stateGetByKey(previous, stateKeyOf("m.room.member", userId))).toBeUndefined();
          again.set(stateKeyOf("m.room.member", userId), id);
        }
        expect(sorted(again)).toEqual(sorted(change.changes));
        for (const one of others.keys()) {
          const isNew = stateGetByKey(previous, one) === undefined;
          expect(isNew && one.startsWith("m.room.member") && one.endsWith(":theirs")).toBe(false);
        }
      }),
      runs(200),
    );
  });
});
