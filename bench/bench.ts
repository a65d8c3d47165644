import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { registerClient } from "../demo/chat-client.ts";
import type { ChatClient } from "../demo/chat-client.ts";
import { spawnResident } from "../test/resident/spawn-resident.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { measureJoin, type Manner } from "./measure-join.ts";
import { measureReceiving, type ReceivingFigures } from "./measure-receiving.ts";
import { readPlan, timeLimitMs, type Plan } from "./plan.ts";
import { openFastjoin, openSynapse } from "./products.ts";
import type { Product, Stoppable } from "./products.ts";
import { tablesOf, type Measured, type Round } from "./report.ts";
import { measureStateResolution } from "./state-resolution.ts";
import { untilIdle } from "./until-idle.ts";
import { writeTables } from "./write-tables.ts";

/**
 * The main job beside Synapse's: both join the same rooms of the same resident, one after the other, each with a
 * PostgreSQL of its own. Prints Markdown tables of medians and writes every round to `bench.json`.
 *
 *     npm run bench -- --only join,full --members 1000,5000 --alone none --rounds 1
 */

const OUTPUT = join(import.meta.dirname, "..", "bench.json");
const WARM_UP_MEMBERS = 200;

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

/** What goes out to all servers of a room would, from hundreds of rooms' worth of servers, measure the resident. */
const SERVERS: Readonly<Record<Manner, number>> = { quiet: 50, receiving: 50, full: 50, sending: 5 };

interface RoundToPlay {
  readonly members: number;
  readonly round: number;
  readonly manner: Manner;
  readonly alone?: boolean;
}

/** One room, joined by both. Whoever is first in one round is second in the next. */
async function playRound(field: Field, { members, round, manner, alone = false }: RoundToPlay): Promise<Round[]> {
  const { resident } = field;
  // While its own client sends, the resync of Synapse does not always end.
  const oursOnly = alone || manner === "sending";
  const competitors = field.competitors.filter(({ product }) => !oursOnly || product.name === "Fastjoin");
  // The resident adds a user of its own.
  const label = `bench ${manner} ${round}`;
  const parameters = { members: members - 1, servers: SERVERS[manner], label, messages: 50 };
  const { roomId, founder } = await resident.call("hostRoom", parameters);
  const order = round % 2 === 0 ? competitors.toReversed() : competitors;
  const figures: Round[] = [];
  for (const { product, client } of order) {
    const seconds = await untilIdle(field.competitors.map((competitor) => competitor.product));
    if (seconds > 0) say(`at rest after ${seconds} s`);
    const measured = await measureJoin({ product, client, resident, roomId, founder, members, manner });
    figures.push({ product: product.name, members, round, manner, ...measured });
    const { joinReturns, resyncEnds } = measured;
    const took = `join ${joinReturns.toFixed(2)} s, resync ${resyncEnds.toFixed(2)} s`;
    say(`${members} members, ${manner}, round ${round}, ${product.name}: ${took}`);
  }
  return figures;
}

async function playRounds(field: Field, plan: Plan): Promise<readonly Round[]> {
  // Code is compiled, connections are open and the servers' keys are known before anything is measured.
  for (const manner of plan.manners) await playRound(field, { members: WARM_UP_MEMBERS, round: 0, manner });
  const sizes = [
    ...plan.sizes.map((members) => ({ members, alone: false })),
    ...plan.aloneSizes.map((members) => ({ members, alone: true })),
  ];
  const rounds: Round[] = [];
  for (const { members, alone } of sizes) {
    for (let round = 1; round <= plan.rounds; round += 1) {
      for (const manner of plan.manners) rounds.push(...(await playRound(field, { members, round, manner, alone })));
    }
  }
  return rounds;
}

async function receiveMessages(field: Field, plan: Plan): Promise<readonly ReceivingFigures[]> {
  const receiving: ReceivingFigures[] = [];
  for (const { product, client } of plan.receivingMembers === undefined ? [] : field.competitors) {
    const { resident } = field;
    say(`${product.name} receives messages`);
    receiving.push(await measureReceiving({ product, client, resident, members: plan.receivingMembers ?? 0 }));
  }
  return receiving;
}

async function play(stage: Stage, plan: Plan): Promise<void> {
  const loadBefore = loadavg();
  // Alone, before the products are there to take its processor.
  const resolution = plan.resolution ? await measureStateResolution() : undefined;
  const field = await openField(stage, plan);
  const rounds = await playRounds(field, plan);
  const receiving = await receiveMessages(field, plan);
  const machine = {
    cores: availableParallelism(),
    processor: cpus()[0]?.model ?? "unknown",
    node: process.version,
    loadBefore,
    loadAfter: loadavg(),
  };
  const measured: Measured = { at: new Date().toISOString(), machine, rounds, receiving, resolution };
  writeFileSync(OUTPUT, `${JSON.stringify(measured, undefined, 2)}\n`);
  for (const { title, table } of tablesOf(measured)) console.log(`\n${title}\n\n${table}`);
  if (plan.writeDocs) writeTables(measured);
}

async function clear(stage: Stage): Promise<void> {
  for (const one of stage.open.splice(0).toReversed()) await one.stop();
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
