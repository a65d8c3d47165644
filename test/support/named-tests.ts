import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dirname, "../..");

/** The tests of one file that a page names. */
export interface NamedTests {
  /** Below `test/`, without `.test.ts`. */
  readonly file: string;
  readonly titles: readonly string[];
}

export function readPage(name: string): string {
  return readFileSync(join(ROOT, "docs", `${name}.md`), "utf8");
}

/** Wherever a page says `file`: "title", "title" */
export function namedTestsIn(page: string): readonly NamedTests[] {
  const matches = page.matchAll(/`([a-z0-9/-]+)`: ("[^"]+"(?:, "[^"]+")*)/g);
  return [...matches].map(([, file = "", titles = ""]) => ({
    file,
    titles: [...titles.matchAll(/"([^"]+)"/g)].map(([, title = ""]) => title),
  }));
}

/** What a page names and nobody has written, or has called otherwise since. */
export function notThere({ file, titles }: NamedTests): readonly string[] {
  const path = join(ROOT, "test", `${file}.test.ts`);
  if (!existsSync(path)) return [`${file}.test.ts`];
  const source = readFileSync(path, "utf8");
  return titles.filter((title) => !source.includes(title));
}
