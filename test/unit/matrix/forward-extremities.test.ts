import { describe, expect, it } from "vitest";
import { followForwardExtremities, type GraphEvent } from "../../../src/matrix/forward-extremities.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";

function event(id: string, ...prev: readonly string[]): GraphEvent {
  return { eventId: `$${id}`, prevEventIds: prev.map((one): EventId => `$${one}`) };
}

/** Accepts the events in turn; one whose id begins with "x" is refused. */
function extremitiesAfter(...events: readonly GraphEvent[]): readonly string[] {
  const extremities = followForwardExtremities();
  for (const one of events) {
    if (one.eventId.startsWith("$x")) extremities.refuse(one);
    else extremities.accept(one);
  }
  return [...extremities.current()].toSorted();
}

describe("followForwardExtremities", () => {
  it("puts an event in the place of those that it builds on", () => {
    expect(extremitiesAfter(event("a"), event("b", "a"))).toEqual(["$b"]);
  });

  it("keeps both ends of a fork until an event merges them", () => {
    const fork = [event("a"), event("b", "a"), event("c", "a")];
    expect(extremitiesAfter(...fork)).toEqual(["$b", "$c"]);
    expect(extremitiesAfter(...fork, event("d", "b", "c"))).toEqual(["$d"]);
  });

  it("leaves in place what only a refused event builds on", () => {
    expect(extremitiesAfter(event("a"), event("x", "a"))).toEqual(["$a"]);
  });

  it("takes away what an accepted event builds on through refused ones", () => {
    expect(extremitiesAfter(event("a"), event("x1", "a"), event("x2", "x1"), event("b", "x2"))).toEqual(["$b"]);
  });

  it("gives no place to an event that arrives after one that builds on it", () => {
    expect(extremitiesAfter(event("a"), event("c", "b"), event("b", "a"))).toEqual(["$c"]);
  });

  it("takes away what a refused event names that arrives after an accepted one that builds on it", () => {
    expect(extremitiesAfter(event("a"), event("c", "x"), event("x", "a"))).toEqual(["$c"]);
  });
});
