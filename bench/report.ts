import type { JoinFigures, Manner } from "./measure-join.ts";
import { receivingTable, type ReceivingFigures } from "./measure-receiving.ts";
import { MESSAGES } from "./meanwhile.ts";
import type { ProductName } from "./products.ts";

/** One product's join of one room. */
export interface Round extends JoinFigures {
  readonly product: ProductName;
  readonly members: number;
  readonly round: number;
  readonly manner: Manner;
}

/** What `bench.json` holds. */
export interface Measured {
  readonly at: string;
  readonly machine: {
    readonly cores: number;
    readonly processor: string;
    readonly node: string;
    readonly loadBefore: readonly number[];
    readonly loadAfter: readonly number[];
  };
  readonly rounds: readonly Round[];
  readonly receiving: readonly ReceivingFigures[];
  /** A table. */
  readonly resolution: string | undefined;
}

export interface Table {
  /** Where it stands in docs/performance.md. */
  readonly name: string;
  readonly title: string;
  readonly table: string;
}

interface Column {
  readonly title: string;
  readonly of: (round: Round) => number | undefined;
  readonly digits: number;
}

const JOIN: Column = { title: "join returns (s)", of: (round) => round.joinReturns, digits: 2 };
const RESYNC: Column = { title: "resync ends (s after)", of: (round) => round.resyncEnds, digits: 2 };
const CPU: Column = { title: "CPU (s)", of: (round) => round.cpu, digits: 2 };
const POSTGRES: Column = { title: "PostgreSQL CPU (s)", of: (round) => round.postgresCpu, digits: 2 };
const TEMPORAL: Column = { title: "Temporal CPU (s)", of: (round) => round.temporalCpu, digits: 2 };
const MEMORY: Column = { title: "peak memory (MiB)", of: (round) => round.peakMemory, digits: 0 };
const HELD_UP: Column = {
  title: "event loop held up (ms)",
  of: (round) => Math.max(0, ...Object.values(round.heldUp)),
  digits: 0,
};

const COLUMNS: Readonly<Record<Manner, readonly Column[]>> = {
  quiet: [JOIN, RESYNC, CPU, POSTGRES, TEMPORAL, MEMORY],
  receiving: [
    RESYNC,
    { title: "all caught up (s)", of: ({ received }) => received?.caughtUp, digits: 2 },
    { title: `of ${MESSAGES} received`, of: ({ received }) => received?.received, digits: 0 },
    CPU,
    POSTGRES,
  ],
  sending: [
    RESYNC,
    { title: "messages sent", of: ({ sent }) => sent?.sent, digits: 0 },
    { title: "p50 (ms)", of: ({ sent }) => sent?.p50, digits: 0 },
    { title: "p99 (ms)", of: ({ sent }) => sent?.p99, digits: 0 },
    { title: "longest (ms)", of: ({ sent }) => sent?.longest, digits: 0 },
    HELD_UP,
  ],
  full: [JOIN, CPU, POSTGRES, MEMORY],
};

const TITLES: Readonly<Record<Manner, string>> = {
  quiet: "Join and resync",
  receiving: `The same with ${MESSAGES} messages of another server meanwhile`,
  sending: "The same while a client sends ten messages a second",
  full: "A full join, where the resident refuses to leave the members out",
};

/** The middle one; of two middle ones their mean. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const [low, high] = [sorted[Math.floor((sorted.length - 1) / 2)], sorted[Math.floor(sorted.length / 2)]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

/** `1 : 8.2` where Synapse takes 8.2 times as much, `1.5 : 1` where it takes less. */
function ratio(ours: number, theirs: number): string {
  if (!(ours > 0) || !(theirs > 0)) return "";
  return ours <= theirs ? `1 : ${(theirs / ours).toFixed(1)}` : `${(ours / theirs).toFixed(1)} : 1`;
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(" | ")} |`;
}

/** A Markdown table of the medians, with a line for the ratio under each size that both have measured. */
export function joinTable(rounds: readonly Round[], columns: readonly Column[]): string {
  const lines = [
    row(["members", "", ...columns.map(({ title }) => title)]),
    row(["---:", "---", ...columns.map(() => "---:")]),
  ];
  for (const members of new Set(rounds.map((round) => round.members))) {
    const mediansOf = (product: ProductName): readonly number[] => {
      const own = rounds.filter((round) => round.members === members && round.product === product);
      return columns.map(({ of }) => median(own.map(of).filter((figure) => figure !== undefined)));
    };
    const [ours, theirs] = [mediansOf("Fastjoin"), mediansOf("Synapse")];
    const written = (medians: readonly number[]): string[] =>
      columns.map(({ digits }, index) => writtenFigure(medians[index], digits));
    lines.push(row([members.toLocaleString("en-US"), "Fastjoin", ...written(ours)]));
    if (theirs.every(Number.isNaN)) continue;
    lines.push(row(["", "Synapse", ...written(theirs)]));
    lines.push(row(["", "ratio", ...columns.map((_, index) => ratio(ours[index] ?? 0, theirs[index] ?? 0))]));
  }
  return lines.join("\n");
}

function writtenFigure(figure: number | undefined, digits: number): string {
  return figure !== undefined && figure > 0 ? figure.toFixed(digits) : "–";
}

/** All that was measured, as Markdown. */
export function tablesOf({ rounds, receiving, resolution }: Measured): readonly Table[] {
  const manners = [...new Set(rounds.map(({ manner }) => manner))];
  const tables = manners.map((manner) => ({
    name: manner,
    title: TITLES[manner],
    table: joinTable(
      rounds.filter((round) => round.manner === manner),
      COLUMNS[manner],
    ),
  }));
  return [
    ...tables,
    ...(receiving.length === 0
      ? []
      : [{ name: "received-per-second", title: "Messages received per second", table: receivingTable(receiving) }]),
    ...(resolution === undefined ? [] : [{ name: "state-resolution", title: "State resolution", table: resolution }]),
  ];
}
