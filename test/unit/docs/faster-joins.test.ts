import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "../../..");

interface Reference {
  readonly file: string;
  readonly names: readonly string[];
}

/** `file`: "name", "name" */
function referencesIn(page: string): readonly Reference[] {
  const matches = page.matchAll(/`([a-z0-9/-]+)`: ("[^"]+"(?:, "[^"]+")*)/g);
  return [...matches].map(([, file = "", names = ""]) => ({
    file,
    names: [...names.matchAll(/"([^"]+)"/g)].map(([, name = ""]) => name),
  }));
}

const references = referencesIn(readFileSync(join(ROOT, "docs/faster-joins.md"), "utf8"));

describe("docs/faster-joins.md", () => {
  it("names tests in every section", () => {
    expect(references.length).toBeGreaterThan(30);
  });

  it.each(references)("names tests that are there: $file", ({ file, names }) => {
    const path = join(ROOT, "test", `${file}.test.ts`);
    expect(existsSync(path), `${file}.test.ts`).toBe(true);
    const source = readFileSync(path, "utf8");
    for (const name of names) expect(source).toContain(name);
  });
});
