import { describe, expect, it } from "vitest";
import { namedTestsIn, notThere, readPage } from "../../support/named-tests.ts";

const named = namedTestsIn(readPage("faster-joins"));

describe("docs/faster-joins.md", () => {
  it("names tests in every section", () => {
    expect(named.length).toBeGreaterThan(30);
  });

  it.each(named)("names tests that are there: $file", (tests) => {
    expect(notThere(tests)).toEqual([]);
  });
});
