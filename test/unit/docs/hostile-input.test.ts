import { describe, expect, it } from "vitest";
import { namedTestsIn, notThere, readPage } from "../../support/named-tests.ts";

const page = readPage("hostile-input");
/** Of three columns; the table of causes has two. */
const rows = page.split("\n").filter((line) => line.startsWith("| ") && line.split("|").length === 5);
const entries = rows.filter((row) => !row.startsWith("| they send") && !row.startsWith("| ---"));
const named = namedTestsIn(page);

describe("docs/hostile-input.md", () => {
  it("names a test in every row", () => {
    expect(entries.length).toBeGreaterThan(10);
    expect(entries.filter((row) => namedTestsIn(row).length === 0)).toEqual([]);
  });

  it.each(named)("names tests that are there: $file", (tests) => {
    expect(notThere(tests)).toEqual([]);
  });
});
