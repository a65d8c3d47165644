import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { registerClient } from "../demo/chat-client.ts";
import type { ChatClient } from "../demo/chat-client.ts";
import { spawnResident } from "../test/resident/spawn-resident.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { measureJoin, patienceMs } from "./measure-join.ts";
import { measureReceiving, receivingTable, type ReceivingFigures } from "./measure-receiving.ts";
import { openFastjoin, openSynapse } from "./products.ts";
import type { Product, Stoppable } from "./products.ts";
import { markdownTable, mediansOf } from "./report.ts";
import type { Round } from "./report.ts";
import { measureStateResolution } from "./state-resolution.ts";

/**
 * The main job beside Synapse's: both join the same rooms of the same resident, one after the other, each with a
 * PostgreSQL of its own. Prints a Markdown table of medians and writes every round to `bench.json`.
 *
 *     npm run bench -- --members 1000,5000,20000 --rounds 3
 */

const OUTPUT = join(import.meta.dirname, "..", "bench.json");
const SERVERS = 50;
const WARM_UP_MEMBERS = 200;
/** For all that starts and stops. */
const OVERHEAD_MS = 600_000;

interface Plan {
  readonly sizes: readonly number[];
  readonly rounds: number;
  readonly fromSource: boolean;
  readonly resolution: boolean;
  /** Of the room in which receiving is measured; undefined: it is left out. */
  readonly receivingMembers: number | undefined;
}

/** What has been started, and must be ended whatever happens. */
interface Stage {
  readonly directory: string;
  readonly open: Stoppable[];
  readonly products: Product[];
  interrupted: boolean;
}

interface Field {
  readonly resident: ResidentProcess;
  readonly competitors: readonly { readonly product: Product; readonly client: ChatClient }[];
}

function readPlan(): Plan {
  const { values } = parseArgs({
    options: {
      members: { type: "string", default: "1000,5000" },
      rounds: { type: "string", default: "3" },
      "from-source": { type: "boolean", default: false },
      "no-state-resolution": { type: "boolean", default: false },
      "receiving-members": { type: "string", default: "5000" },
      "no-receiving": { type: "boolean", default: false },
    },
  });
  const sizes = values.members.split(",").map((text) => wholeNumber("--members", text, 10));
  return {
    // Ascending: what a process has once held it rarely gives back, and would show as the peak of a smaller room.
    sizes: sizes.toSorted((a, b) => a - b),
    rounds: wholeNumber("--rounds", values.rounds, 1),
    fromSource: values["from-source"],
    resolution: !values["no-state-resolution"],
    receivingMembers: values["no-receiving"]
      ? undefined
      : wholeNumber("--receiving-members", values["receiving-members"], 10),
  };
}

function wholeNumber(flag: string, text: string, least: number): number {
  const number = Number(text);
  if (Number.isSafeInteger(number) && number >= least) return number;
  throw new RangeError(`${flag} holds ${JSON.stringify(text)}; allowed is a whole number from ${least}`);
}

function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

async function openField(stage: Stage, plan: Plan): Promise<Field> {
  const opened = (one: Stoppable): void => void stage.open.push(one);
  const resident = await spawnResident();
  opened(resident);
  const notary = resident.serverNames[0] ?? "";
  const surroundings = { directory: stage.directory, notary, fromSource: plan.fromSource, opened };
  // One after the other: each start is heavy, and its time-out must not depend on the other's.
  for (const open of [openFastjoin, openSynapse]) {
    const product = await open(surroundings);
    stage.products.push(product);
    say(`${product.name} is up, as ${product.serverName}`);
  }
  const competitors = await Promise.all(
    stage.products.map(async (product) => ({ product, client: await registerClient(product.clientUrl, "bench") })),
  );
  return { resident, competitors };
}

/** One room, joined by both. Whoever is first in one round is second in the next. */
async function playRound(field: Field, members: number, round: number): Promise<Round[]> {
  const { resident, competitors } = field;
  // The resident adds a user of its own.
  const parameters = { members: members - 1, servers: SERVERS, label: `bench ${round}`, messages: 50 };
  const { roomId } = await resident.call("hostRoom", parameters);
  const order = round % 2 === 0 ? competitors.toReversed() : competitors;
  const figures: Round[] = [];
  for (const { product, client } of order) {
    const measured = await measureJoin({ product, client, resident, roomId, members });
    figures.push({ product: product.name, members, round, ...measured });
    const { joinReturns, resyncEnds } = measured;
    say(
      `${members} members, round ${round}, ${product.name}: join ${joinReturns.toFixed(2)} s, resync ${resyncEnds.toFixed(2)} s`,
    );
  }
  return figures;
}

async function play(stage: Stage, plan: Plan): Promise<void> {
  const loadBefore = loadavg();
  // Alone, before the products are there to take its processor.
  const resolution = plan.resolution ? await measureStateResolution() : undefined;
  const field = await openField(stage, plan);
  // Code is compiled, connections are open and the servers' keys are known before anything is measured.
  await playRound(field, WARM_UP_MEMBERS, 0);
  const rounds: Round[] = [];
  for (const members of plan.sizes) {
    for (let round = 1; round <= plan.rounds; round += 1) {
      rounds.push(...(await playRound(field, members, round)));
    }
  }
  const receiving: ReceivingFigures[] = [];
  // Of Synapse nothing is measured here: it does not take every event of transactions that come one upon the other.
  const receivers = field.competitors.filter(({ product }) => product.name === "Fastjoin");
  for (const { product, client } of plan.receivingMembers === undefined ? [] : receivers) {
    const { resident } = field;
    say(`${product.name} receives messages`);
    receiving.push(await measureReceiving({ product, client, resident, members: plan.receivingMembers ?? 0 }));
  }
  const machine = {
    cores: availableParallelism(),
    processor: cpus()[0]?.model,
    node: process.version,
    loadBefore,
    loadAfter: loadavg(),
  };
  const medians = plan.sizes.map((members) => ({
    members,
    Fastjoin: mediansOf(rounds, members, "Fastjoin"),
    Synapse: mediansOf(rounds, members, "Synapse"),
  }));
  const stateResolution = resolution?.split("\n");
  const at = new Date().toISOString();
  writeFileSync(
    OUTPUT,
    `${JSON.stringify({ at, machine, medians, rounds, receiving, stateResolution }, undefined, 2)}\n`,
  );
  console.log(`Medians of ${plan.rounds} rounds; ratio is Fastjoin : Synapse.\n\n${markdownTable(rounds)}`);
  if (receiving.length > 0) console.log(`\nMessages received per second\n\n${receivingTable(receiving)}`);
  if (resolution !== undefined) console.log(`\nState resolution\n\n${resolution}`);
}

async function clear(stage: Stage): Promise<void> {
  for (const one of stage.open.splice(0).toReversed()) await one.stop();
}

function timeLimitMs({ sizes, rounds }: Plan): number {
  return sizes.reduce((sum, members) => sum + 2 * rounds * patienceMs(members), OVERHEAD_MS);
}

async function interrupt(stage: Stage, why = ""): Promise<void> {
  if (stage.interrupted) return;
  stage.interrupted = true;
  say(`${why} Stopping everything that was started.`.trim());
  await clear(stage);
  rmSync(stage.directory, { recursive: true, force: true, maxRetries: 5 });
  process.exit(130);
}

function explain(stage: Stage, error: unknown): void {
  say(error instanceof Error ? error.message : String(error));
  for (const product of stage.products) say(`\nThe end of the log of ${product.name}:\n${product.endOfLog()}`);
  say(`\nData and logs are kept in ${stage.directory}`);
}

async function main(): Promise<number> {
  if (process.platform !== "linux") throw new Error("the bench reads the figures of processes from Linux's /proc");
  const plan = readPlan();
  const directory = mkdtempSync(join(tmpdir(), "fastjoin-bench-"));
  // Where the bench runs as root PostgreSQL does not, and must be able to pass through.
  chmodSync(directory, 0o711);
  const stage: Stage = { directory, open: [], products: [], interrupted: false };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => void interrupt(stage));
  // Whatever hangs where no shorter time is set.
  const limit = setTimeout(() => void interrupt(stage, "It has taken too long."), timeLimitMs(plan));
  limit.unref();
  try {
    await play(stage, plan);
  } catch (error) {
    // What fails because everything is being stopped is no news.
    if (stage.interrupted) await new Promise(() => undefined);
    explain(stage, error);
    await clear(stage);
    return 1;
  }
  await clear(stage);
  rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  say(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
