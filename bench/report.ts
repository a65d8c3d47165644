import type { JoinFigures } from "./measure-join.ts";
import type { ProductName } from "./products.ts";

/** One product's join of one room. */
export interface Round extends JoinFigures {
  readonly product: ProductName;
  readonly members: number;
  readonly round: number;
}

type Figure = "joinReturns" | "resyncEnds" | "cpu" | "postgresCpu" | "temporalCpu" | "peakMemory";

const COLUMNS: readonly { readonly figure: Figure; readonly title: string; readonly digits: number }[] = [
  { figure: "joinReturns", title: "join returns (s)", digits: 2 },
  { figure: "resyncEnds", title: "resync ends (s after)", digits: 2 },
  { figure: "cpu", title: "CPU (s)", digits: 2 },
  { figure: "postgresCpu", title: "PostgreSQL CPU (s)", digits: 2 },
  { figure: "temporalCpu", title: "Temporal CPU (s)", digits: 2 },
  { figure: "peakMemory", title: "peak memory (MiB)", digits: 0 },
];

export type Medians = Readonly<Record<Figure, number>>;

/** The middle one; of two middle ones their mean. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** Of each figure by itself. */
export function mediansOf(rounds: readonly Round[], members: number, product: ProductName): Medians {
  const own = rounds.filter((round) => round.members === members && round.product === product);
  const entries = COLUMNS.map(({ figure }) => [figure, median(own.map((round) => round[figure]))]);
  return Object.fromEntries(entries) as Medians;
}

/** `1 : 8.2` where Synapse takes 8.2 times as much, `1.5 : 1` where it takes less. */
function ratio(ours: number, theirs: number): string {
  if (!(ours > 0) || !(theirs > 0)) return "";
  return ours <= theirs ? `1 : ${(theirs / ours).toFixed(1)}` : `${(ours / theirs).toFixed(1)} : 1`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

/** A Markdown table of the medians, with a line for the ratio under each size. */
export function markdownTable(rounds: readonly Round[]): string {
  const sizes = [...new Set(rounds.map((round) => round.members))];
  const lines = [
    row(["members", "", ...COLUMNS.map(({ title }) => title)]),
    row(["---:", "---", ...COLUMNS.map(() => "---:")]),
  ];
  for (const members of sizes) {
    const ours = mediansOf(rounds, members, "Fastjoin");
    const theirs = mediansOf(rounds, members, "Synapse");
    const written = (medians: Medians): string[] =>
      COLUMNS.map(({ figure, digits }) => (medians[figure] > 0 ? medians[figure].toFixed(digits) : "–"));
    lines.push(row([members.toLocaleString("en-US"), "Fastjoin", ...written(ours)]));
    lines.push(row(["", "Synapse", ...written(theirs)]));
    lines.push(row(["", "ratio", ...COLUMNS.map(({ figure }) => ratio(ours[figure], theirs[figure]))]));
  }
  return lines.join("\n");
}
