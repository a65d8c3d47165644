import { parseArgs } from "node:util";
import { patienceMs, type Manner } from "./measure-join.ts";

/** What the bench is to measure. */
export interface Plan {
  /** Of the rooms that both products join, ascending. */
  readonly sizes: readonly number[];
  /** Of those that Fastjoin joins alone. */
  readonly aloneSizes: readonly number[];
  readonly rounds: number;
  readonly manners: readonly Manner[];
  readonly fromSource: boolean;
  readonly resolution: boolean;
  /** Of the room in which receiving is measured; undefined: it is left out. */
  readonly receivingMembers: number | undefined;
  /** Write the tables into docs/performance.md. */
  readonly writeDocs: boolean;
}

const PARTS = ["join", "messages", "send", "full", "receiving", "state-resolution"] as const;
type Part = (typeof PARTS)[number];

const MANNER_OF: Readonly<Partial<Record<Part, Manner>>> = {
  join: "quiet",
  messages: "receiving",
  send: "sending",
  full: "full",
};

/** For all that starts and stops. */
const OVERHEAD_MS = 1_200_000;

export function readPlan(): Plan {
  const { values } = parseArgs({
    options: {
      members: { type: "string", default: "1000,5000,20000" },
      alone: { type: "string", default: "100000" },
      rounds: { type: "string", default: "3" },
      only: { type: "string", default: PARTS.join(",") },
      "receiving-members": { type: "string", default: "5000" },
      "from-source": { type: "boolean", default: false },
      "write-docs": { type: "boolean", default: false },
    },
  });
  const parts = new Set(listOf(values.only).map(partNamed));
  return {
    sizes: sizesOf("--members", values.members),
    aloneSizes: sizesOf("--alone", values.alone),
    rounds: wholeNumber("--rounds", values.rounds, 1),
    manners: PARTS.flatMap((part) => (parts.has(part) ? (MANNER_OF[part] ?? []) : [])),
    fromSource: values["from-source"],
    resolution: parts.has("state-resolution"),
    receivingMembers: parts.has("receiving")
      ? wholeNumber("--receiving-members", values["receiving-members"], 10)
      : undefined,
    writeDocs: values["write-docs"],
  };
}

function listOf(text: string): readonly string[] {
  return text.split(",").filter((one) => one !== "" && one !== "none");
}

/** Ascending: what a process has once held it rarely gives back, and would show as the peak of a smaller room. */
function sizesOf(flag: string, text: string): readonly number[] {
  return listOf(text)
    .map((one) => wholeNumber(flag, one, 10))
    .toSorted((a, b) => a - b);
}

function partNamed(name: string): Part {
  const part = PARTS.find((one) => one === name);
  if (part === undefined) throw new RangeError(`--only holds ${name}; there are ${PARTS.join(", ")}`);
  return part;
}

function wholeNumber(flag: string, text: string, least: number): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= least) return number;
  throw new RangeError(`${flag} holds ${JSON.stringify(text)}; allowed is a whole number from ${least}`);
}

/** Long enough for the slowest run that is no failure. */
export function timeLimitMs({ sizes, aloneSizes, rounds, manners }: Plan): number {
  const of = (members: number, products: number): number => products * rounds * manners.length * patienceMs(members);
  const both = sizes.reduce((sum, members) => sum + of(members, 2), OVERHEAD_MS);
  return aloneSizes.reduce((sum, members) => sum + of(members, 1), both);
}
