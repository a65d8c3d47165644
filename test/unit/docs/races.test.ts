import { describe, expect, it } from "vitest";
import { notThere, readPage, type NamedTests } from "../../support/named-tests.ts";

interface NamedForPair extends NamedTests {
  readonly pair: string;
}

/** The last column of a row: `file` words, words; `file` words. Words are a part of a title, split at its commas. */
function namedForPairs(page: string): readonly NamedForPair[] {
  const rows = page.split("\n").filter((line) => line.startsWith("| ") && line.split("|").length === 6);
  return rows.flatMap((row) => {
    const [, pair = "", , , tests = ""] = row.split("|").map((cell) => cell.trim());
    return [...tests.matchAll(/`([a-z-]+)`([^`]*)/g)].map(([, file = "", names = ""]) => ({
      pair,
      file: `integration/rooms/races/${file}`,
      titles: names
        .split(/[,;]\s/)
        .map((name) => name.replace(/;$/, "").trim())
        .filter((name) => name !== ""),
    }));
  });
}

const named = namedForPairs(readPage("races"));

describe("docs/races.md", () => {
  it("names a test for each pair", () => {
    expect(named.length).toBeGreaterThan(40);
  });

  it.each(named)("names tests that are there: $pair", (tests) => {
    expect(notThere(tests)).toEqual([]);
  });
});
