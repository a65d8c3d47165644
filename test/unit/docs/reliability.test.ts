import { describe, expect, it } from "vitest";
import { ALL_STEPS } from "../../long/kill-matrix/cells.ts";
import { stepsOfTable } from "../../long/kill-matrix/table.ts";
import { namedTestsIn, notThere, readPage } from "../../support/named-tests.ts";

describe("docs/reliability.md", () => {
  it("has a row for each step of the kill matrix, in its order", () => {
    expect(stepsOfTable()).toEqual(ALL_STEPS);
  });

  it.each(namedTestsIn(readPage("reliability")))("names tests that are there: $file", (tests) => {
    expect(notThere(tests)).toEqual([]);
  });
});
