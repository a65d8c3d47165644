import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { tablesOf, type Measured } from "./report.ts";

const PAGE = join(import.meta.dirname, "..", "docs", "performance.md");

/** Puts the tables in their places in docs/performance.md; what was not measured stays as it is. */
export function writeTables(measured: Measured): void {
  let page = readFileSync(PAGE, "utf8");
  for (const { name, table } of tablesOf(measured)) {
    page = replaceBetween(page, name, `${machineOf(measured)}\n\n${table}`);
  }
  writeFileSync(PAGE, page);
}

/** @throws Error where the page has no such place */
export function replaceBetween(page: string, name: string, text: string): string {
  const [from, to] = [`<!-- bench: ${name} -->`, "<!-- /bench -->"];
  const start = page.indexOf(from);
  const end = page.indexOf(to, start);
  if (start < 0 || end < 0) throw new Error(`docs/performance.md has no place for ${name}`);
  return `${page.slice(0, start + from.length)}\n\n${text}\n\n${page.slice(end)}`;
}

function machineOf({ at, machine, rounds }: Measured): string {
  const count = Math.max(...rounds.map(({ round }) => round), 1);
  const { cores, node, loadBefore } = machine;
  const load = (loadBefore[0] ?? 0).toFixed(1);
  return `${at.slice(0, 10)}, ${cores} cores, Node ${node.slice(1)}, load ${load} before; medians of ${count} rounds.`;
}
