import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Step } from "../../../src/rooms/failpoints.ts";
import type { Answer, Point } from "../../support/failpoints/answers.ts";
import { ALL_STEPS, pointOf, SIDES, VICTIMS } from "./cells.ts";
import type { Cell, Performance, Rehearsal, Victim } from "./perform.ts";

const PAGE = fileURLToPath(new URL("../../../docs/reliability.md", import.meta.url));
const BEGIN = "<!-- kill matrix: begin -->";
const END = "<!-- kill matrix: end -->";

/** How a kill ended: like the run without it or not, or that it was not made. */
type End = "same" | "ANOTHER" | "–";

/** How each kill of the table ended, by its place. */
type Ends = ReadonlyMap<string, End>;

const placeOf = (victim: Victim, point: Point): string => `${victim} ${point}`;

/** The rows of the page's table, without its head. */
function readRows(): readonly (readonly string[])[] {
  const page = readFileSync(PAGE, "utf8");
  const table = page.slice(page.indexOf(BEGIN), page.indexOf(END));
  const rows = table.split("\n").filter((line) => line.startsWith("| "));
  return rows.slice(2).map((line) => line.split("|").map((cell) => cell.trim()));
}

/** The steps that the table has rows for. */
export function stepsOfTable(): readonly string[] {
  return readRows().map(([, step = ""]) => step);
}

function readEnds(): Ends {
  return new Map(readRows().flatMap(endsOfRow));
}

function endsOfRow([, step, , , ...kills]: readonly string[]): readonly (readonly [string, End])[] {
  return VICTIMS.flatMap((victim, column) => {
    const ends = (kills[column] ?? "").split(", ");
    return SIDES.flatMap((side, place) => {
      const end = ends[place];
      if (end !== "same" && end !== "ANOTHER") return [];
      return [[placeOf(victim, pointOf(side, step as Step | Answer)), end] as const];
    });
  });
}

/** Tells of which kills the table does not say that they end like the run without them. */
export function lacksIn(): (cell: Cell) => boolean {
  const ends = readEnds();
  return ({ point, victim }) => ends.get(placeOf(victim, point)) !== "same";
}

/**
 * The page's table for as long as a run lasts: what the run is to make is taken out at once, and what it has made put
 * in one by one, so that a run which is broken off leaves what it did and shows what is left, and several runs may
 * share the work. Does nothing unless `RELIABILITY_TABLE=write` asks for it.
 *
 * @returns what notes a kill that was made
 */
export function openTable(rehearsals: readonly Rehearsal[], cells: readonly Cell[]): (done: Performance) => void {
  if (process.env["RELIABILITY_TABLE"] !== "write") return () => undefined;
  const left = new Map(readEnds());
  for (const { point, victim } of cells) left.delete(placeOf(victim, point));
  writeEnds(rehearsals, left);
  return ({ cell: { point, victim }, failure }) => {
    const end = failure === undefined ? "same" : "ANOTHER";
    writeEnds(rehearsals, new Map([...readEnds(), [placeOf(victim, point), end]]));
  };
}

function writeEnds(rehearsals: readonly Rehearsal[], ends: Ends): void {
  const page = readFileSync(PAGE, "utf8");
  const [before = "", rest = ""] = page.split(BEGIN);
  const [, after = ""] = rest.split(END);
  const text = [sumOf(ends), "", ...tableOf(rehearsals, ends)].join("\n");
  writeFileSync(PAGE, `${before}${BEGIN}\n\n${text}\n\n${END}${after}`);
}

function sumOf(ends: Ends): string {
  const made = [...ends.values()];
  const all = ALL_STEPS.length * SIDES.length * VICTIMS.length;
  const same = made.filter((end) => end === "same").length;
  return `Of ${all} kills ${made.length} were made: ${same} with the same end, ${made.length - same} with another.`;
}

function tableOf(rehearsals: readonly Rehearsal[], ends: Ends): readonly string[] {
  const heads = ["step", "reached by", "in", ...VICTIMS.map((victim) => `${victim} killed before it, after it`)];
  const rows = ALL_STEPS.map((step) => rowOf(step, rehearsals, ends));
  return [row(heads), row(heads.map(() => "---")), ...rows.map(row)];
}

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

function rowOf(step: Step | Answer, rehearsals: readonly Rehearsal[], ends: Ends): readonly string[] {
  const rehearsal = rehearsals.find(({ reached }) => reached.has(pointOf("before", step)));
  const half = rehearsal?.reached.get(pointOf("before", step)) ?? "nobody";
  const kills = VICTIMS.map((victim) =>
    SIDES.map((side) => ends.get(placeOf(victim, pointOf(side, step))) ?? "–").join(", "),
  );
  return [step, half, rehearsal?.deed.name ?? "nothing", ...kills];
}
