import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "../../..");

interface Reference {
  readonly pair: string;
  readonly file: string;
  /** Parts of the tests' names, which are split at their commas. */
  readonly words: readonly string[];
}

/** The last column of a row: `file` words, words; `file` words */
function referencesIn(page: string): readonly Reference[] {
  const rows = page.split("\n").filter((line) => line.startsWith("| ") && line.split("|").length === 6);
  return rows.flatMap((row) => {
    const [, pair = "", , , tests = ""] = row.split("|").map((cell) => cell.trim());
    return [...tests.matchAll(/`([a-z-]+)`([^`]*)/g)].map(([, file = "", names = ""]) => ({
      pair,
      file,
      words: names
        .split(/[,;]\s/)
        .map((name) => name.replace(/;$/, "").trim())
        .filter((name) => name !== ""),
    }));
  });
}

const references = referencesIn(readFileSync(join(ROOT, "docs/races.md"), "utf8"));

describe("docs/races.md", () => {
  it("names a test for each pair", () => {
    expect(references.length).toBeGreaterThan(40);
  });

  it.each(references)("names tests that are there: $pair", ({ file, words }) => {
    const path = join(ROOT, "test/integration/rooms/races", `${file}.test.ts`);
    expect(existsSync(path), path).toBe(true);
    const source = readFileSync(path, "utf8");
    for (const name of words) expect(source).toContain(name);
  });
});
