import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Step } from "../../../src/rooms/failpoints.ts";
import type { Answer } from "../../support/failpoints/answers.ts";
import { ALL_STEPS, pointOf, SIDES, VICTIMS } from "./cells.ts";
import type { Performance, Rehearsal, Victim } from "./perform.ts";

const PAGE = fileURLToPath(new URL("../../../docs/reliability.md", import.meta.url));
const BEGIN = "<!-- kill matrix: begin -->";
const END = "<!-- kill matrix: end -->";

/** The table of the page, without its markers. */
async function readTable(): Promise<string> {
  const page = await readFile(PAGE, "utf8");
  return page.slice(page.indexOf(BEGIN) + BEGIN.length, page.indexOf(END)).trim();
}

/** The steps that the table has rows for. */
export async function stepsOfTable(): Promise<readonly string[]> {
  const rows = (await readTable()).split("\n").slice(2);
  return rows.map((line) => line.split("|")[1]?.trim() ?? "");
}

/** Puts what a run has come to into the page, if `RELIABILITY_TABLE=write` asks for it. */
export async function writeTable(
  rehearsals: readonly Rehearsal[],
  performances: readonly Performance[],
): Promise<void> {
  if (process.env["RELIABILITY_TABLE"] !== "write") return;
  const page = await readFile(PAGE, "utf8");
  const [before = "", rest = ""] = page.split(BEGIN);
  const [, after = ""] = rest.split(END);
  await writeFile(PAGE, `${before}${BEGIN}\n\n${tableOf(rehearsals, performances)}\n\n${END}${after}`);
}

function tableOf(rehearsals: readonly Rehearsal[], performances: readonly Performance[]): string {
  const heads = ["step", "reached by", "in", ...VICTIMS.map((victim) => `${victim} killed before it, after it`)];
  const rows = ALL_STEPS.map((step) => rowOf(step, rehearsals, performances));
  return [row(heads), row(heads.map(() => "---")), ...rows.map(row)].join("\n");
}

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

function rowOf(
  step: Step | Answer,
  rehearsals: readonly Rehearsal[],
  performances: readonly Performance[],
): readonly string[] {
  const rehearsal = rehearsals.find(({ reached }) => reached.has(pointOf("before", step)));
  const half = rehearsal?.reached.get(pointOf("before", step)) ?? "nobody";
  const kills = VICTIMS.map((victim) => endsOf(step, victim, performances));
  return [step, half, rehearsal?.deed.name ?? "nothing", ...kills];
}

function endsOf(step: Step | Answer, victim: Victim, performances: readonly Performance[]): string {
  const ends = SIDES.map((side) => {
    const one = performances.find(({ cell }) => cell.victim === victim && cell.point === pointOf(side, step));
    return one === undefined ? "–" : one.failure === undefined ? "same" : "ANOTHER";
  });
  return ends.join(", ");
}
