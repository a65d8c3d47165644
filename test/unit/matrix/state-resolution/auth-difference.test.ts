import { describe, expect, it } from "vitest";

import type { EventId } from "../../../../src/matrix/identifiers.ts";
import { authDifference } from "../../../../src/matrix/state-resolution/auth-difference.ts";
import { conflictedSubgraph } from "../../../../src/matrix/state-resolution/conflicted-subgraph.ts";
import type { RoomEvents } from "../../../../src/matrix/state-resolution/room-events.ts";
import { splitConflictedState } from "../../../../src/matrix/state-resolution/split-conflicted.ts";
import { stateFromEntries } from "../../../../src/matrix/state.ts";
import type { StateMap } from "../../../../src/matrix/state.ts";
import { rulesFor } from "../../../support/a-pdu.ts";

/** A graph of auth edges by one-letter names, which counts how often it is asked for one's edges. */
function graph(edges: Readonly<Record<string, string>>) {
  const asked: string[] = [];
  const events: RoomEvents = {
    rules: rulesFor("11"),
    event: () => undefined,
    authEdges: (id) => {
      asked.push(id.slice(1));
      return (edges[id.slice(1)] ?? "").split("").map((name): EventId => `$${name}`);
    },
  };
  return { events, asked };
}

/** A state of events by name; their first letter is their key. */
const state = (...names: readonly string[]): StateMap =>
  stateFromEntries(names.map((name) => [name.toLowerCase(), `$${name}`] as const));

function difference(edges: Readonly<Record<string, string>>, ...states: readonly StateMap[]): string {
  const ids = authDifference(states, splitConflictedState(states), graph(edges).events);
  return [...ids]
    .map((id) => id.slice(1))
    .sort()
    .join("");
}

describe("authDifference", () => {
  it("is what the conflicted events of one state lead to and those of the other don't", () => {
    expect(difference({ X: "ab", x: "bc", a: "r", b: "r", c: "r" }, state("X"), state("x"))).toBe("ac");
  });

  it("leaves out what the unconflicted state leads to, however far down", () => {
    const edges = { X: "ab", x: "b", a: "r", u: "v", v: "a" };
    expect(difference(edges, state("X"), state("x"))).toBe("ar");
    expect(difference(edges, state("X", "u"), state("x", "u"))).toBe("");
    expect(difference({ ...edges, v: "r" }, state("X", "u"), state("x", "u"))).toBe("a");
    expect(difference(edges, state("X", "a"), state("x", "a"))).toBe("");
  });

  it("counts the events of a state as part of its chain", () => {
    expect(difference({ X: "a", x: "" }, state("X", "b"), state("x", "a", "b"))).toBe("");
    expect(difference({ x: "ya", y: "c" }, state("x"), state("y"))).toBe("a");
  });

  it("compares all of several states", () => {
    const edges = { X: "ab", x: "abc", y: "a" };
    expect(difference(edges, state("X"), state("x"), state("y"))).toBe("bc");
  });

  it("does not look at the unconflicted state where that can't change the answer", () => {
    const { events, asked } = graph({ X: "a", x: "a", a: "r", u: "v" });
    const states = [state("X", "u"), state("x", "u")];
    expect(authDifference(states, splitConflictedState(states), events).size).toBe(0);
    expect(asked).not.toContain("u");
    const cited = graph({ X: "ab", x: "b", u: "v" });
    const withCited = [state("X", "a", "u"), state("x", "a", "u")];
    expect(authDifference(withCited, splitConflictedState(withCited), cited.events).size).toBe(0);
    expect(cited.asked).not.toContain("u");
  });
});

describe("conflictedSubgraph", () => {
  const subgraph = (edges: Readonly<Record<string, string>>, ids: string): string =>
    [...conflictedSubgraph(new Set(ids.split("").map((name): EventId => `$${name}`)), graph(edges).events)]
      .map((id) => id.slice(1))
      .sort()
      .join("");

  it("holds the conflicted events and what lies on a path between two of them", () => {
    expect(subgraph({ e: "cd", d: "a", c: "b", b: "a", a: "r" }, "eb")).toBe("bce");
    expect(subgraph({ e: "cd", d: "a", c: "b", b: "a", a: "r" }, "ea")).toBe("abcde");
    expect(subgraph({ e: "d", d: "c", x: "c" }, "ex")).toBe("ex");
    expect(subgraph({}, "")).toBe("");
  });

  it("survives a cycle and a deep chain", () => {
    expect(subgraph({ a: "b", b: "c", c: "a" }, "a")).toBe("abc");
    const events: RoomEvents = {
      rules: rulesFor("12"),
      event: () => undefined,
      authEdges: (id) => (id === "$0" ? [] : [`$${Number(id.slice(1)) - 1}`]),
    };
    expect(conflictedSubgraph(new Set<EventId>(["$200000", "$0"]), events).size).toBe(200_001);
  });
});
