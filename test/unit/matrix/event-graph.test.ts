import { describe, expect, it } from "vitest";

import { authChainOf, topologicalOrder } from "../../../src/matrix/event-graph.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";

interface Vertex {
  readonly eventId: EventId;
  readonly edges: readonly EventId[];
}

function vertices(graph: Readonly<Record<string, string>>): Vertex[] {
  return Object.entries(graph).map(([name, edges]) => ({
    eventId: `$${name}`,
    edges: edges.split("").map((edge): EventId => `$${edge}`),
  }));
}

const edgesOf = (vertex: Vertex): readonly EventId[] => vertex.edges;
const names = (list: readonly Vertex[]): string => list.map(({ eventId }) => eventId.slice(1)).join("");

/** A chain of events, each naming the one before. */
function chain(length: number): Vertex[] {
  return Array.from({ length }, (_, index) => ({
    eventId: `$${index}` as const,
    edges: index === 0 ? [] : [`$${index - 1}` as const],
  }));
}

describe("topologicalOrder", () => {
  it("puts what an event names before it", () => {
    expect(names(topologicalOrder(vertices({ d: "bc", c: "a", b: "a", a: "" }), edgesOf).ordered)).toBe("abcd");
  });

  it("gives one order whatever the order of its input", () => {
    const graph = vertices({ a: "", b: "", c: "ab", d: "a", e: "dc", f: "" });
    const expected = names(topologicalOrder(graph, edgesOf).ordered);
    expect(names(topologicalOrder(graph.toReversed(), edgesOf).ordered)).toBe(expected);
  });

  it("takes an event that is given or named twice once, and ignores edges out of the set", () => {
    const [a, b] = vertices({ a: "zz", b: "aa" });
    expect(
      names(
        topologicalOrder(
          [b, a, b, a].filter((one) => one !== undefined),
          edgesOf,
        ).ordered,
      ),
    ).toBe("ab");
  });

  it("sets events on a cycle, and those behind it, apart", () => {
    const { ordered, cyclic } = topologicalOrder(vertices({ a: "", b: "c", c: "b", d: "b", e: "a", f: "f" }), edgesOf);
    expect(names(ordered)).toBe("ae");
    expect(names(cyclic)).toBe("bcdf");
  });

  it("survives a chain of 200,000 events", () => {
    const deep = chain(200_000).toReversed();
    expect(topologicalOrder(deep, edgesOf).ordered).toHaveLength(200_000);
  });
});

describe("authChainOf", () => {
  const graph = new Map(vertices({ a: "", b: "a", c: "b", d: "", e: "cz" }).map((vertex) => [vertex.eventId, vertex]));
  const authEdges = (id: EventId): readonly EventId[] => graph.get(id)?.edges ?? [];

  it("holds the events themselves and all that they lead to, known or not", () => {
    expect([...authChainOf(["$e"], authEdges)].sort()).toEqual(["$a", "$b", "$c", "$e", "$z"]);
    expect([...authChainOf(["$d", "$b"], authEdges)].sort()).toEqual(["$a", "$b", "$d"]);
  });

  it("survives a chain of 200,000 events", () => {
    const deep = new Map(chain(200_000).map((vertex) => [vertex.eventId, vertex.edges]));
    expect(authChainOf(["$199999"], (id) => deep.get(id) ?? []).size).toBe(200_000);
  });
});
