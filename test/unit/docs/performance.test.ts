import { describe, expect, it } from "vitest";
import { replaceBetween } from "../../../bench/write-tables.ts";
import { tablesOf, type Measured, type Round } from "../../../bench/report.ts";
import { readPage } from "../../support/named-tests.ts";

const figures = { cpu: 2, postgresCpu: 1, temporalCpu: 0, peakMemory: 300, parts: {}, heldUp: {} };
const round = (more: Pick<Round, "product" | "manner" | "resyncEnds">): Round => ({
  members: 1_000,
  round: 1,
  joinReturns: 0.1,
  ...figures,
  ...more,
});

const measured: Measured = {
  at: "2026-01-01T00:00:00.000Z",
  machine: { cores: 2, processor: "any", node: "v20.0.0", loadBefore: [0], loadAfter: [0] },
  rounds: [
    round({ product: "Fastjoin", manner: "quiet", resyncEnds: 1 }),
    round({ product: "Fastjoin", manner: "quiet", resyncEnds: 3 }),
    round({ product: "Synapse", manner: "quiet", resyncEnds: 20 }),
    round({ product: "Fastjoin", manner: "receiving", resyncEnds: 1 }),
    round({ product: "Fastjoin", manner: "sending", resyncEnds: 1 }),
    round({ product: "Fastjoin", manner: "full", resyncEnds: 0 }),
  ],
  receiving: [],
  resolution: "| a table |",
};

describe("the tables of the bench", () => {
  it("show the medians of both products, and their ratio", () => {
    const [quiet] = tablesOf(measured);
    expect(quiet?.table.split("\n").slice(2)).toEqual([
      "| 1,000 | Fastjoin | 0.10 | 2.00 | 2.00 | 1.00 | – | 300 |",
      "|  | Synapse | 0.10 | 20.00 | 2.00 | 1.00 | – | 300 |",
      "|  | ratio | 1 : 1.0 | 1 : 10.0 | 1 : 1.0 | 1 : 1.0 |  | 1 : 1.0 |",
    ]);
  });

  it("have each a place in docs/performance.md", () => {
    const page = readPage("performance");
    for (const { name, table } of tablesOf(measured)) expect(replaceBetween(page, name, table)).toContain(table);
    expect(replaceBetween(page, "received-per-second", "x")).toContain("x");
    expect(() => replaceBetween(page, "what nobody measures", "x")).toThrow("no place");
  });
});
