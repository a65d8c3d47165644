import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { ChatClient } from "../demo/chat-client.ts";
import { compareStates } from "../demo/compare-states.ts";
import type { RoomId, UserId } from "../src/matrix/identifiers.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { receiveMeanwhile, sendMeanwhile, type ReceivedMeanwhile, type SentMeanwhile } from "./meanwhile.ts";
import { cpuSecondsOf, cpuSecondsOfFamily, forgetPeak, peakMebibytesOf } from "./process-figures.ts";
import type { Processes, Product } from "./products.ts";

/** How a room is joined, and what goes on in it until its state is whole. */
export type Manner =
  /** Nothing. */
  | "quiet"
  /** Another server sends messages. */
  | "receiving"
  /** The client that has joined sends messages. */
  | "sending"
  /** The resident refuses to leave the members out: the join ends with the whole state. */
  | "full";

/** One join of one room by one product. Times in seconds, of the wall or of the processor; memory in MiB. */
export interface JoinFigures {
  readonly joinReturns: number;
  /** From the return of the join until the room is not partial any more. */
  readonly resyncEnds: number;
  readonly received?: ReceivedMeanwhile;
  readonly sent?: SentMeanwhile;
  /** The longest time in milliseconds, if it was a tenth of a second or more, in which a process did nothing else. */
  readonly heldUp: Readonly<Record<string, number>>;
  /** Of the product's own processes together. */
  readonly cpu: number;
  readonly postgresCpu: number;
  readonly temporalCpu: number;
  /** The highest resident sets of the product's own processes but the supervisor, added up. */
  readonly peakMemory: number;
  readonly parts: Readonly<Record<string, { readonly cpu: number; readonly peakMemory: number }>>;
}

export interface Joining {
  readonly product: Product;
  readonly client: ChatClient;
  readonly resident: ResidentProcess;
  readonly roomId: RoomId;
  /** May speak in the room. */
  readonly founder: UserId;
  readonly members: number;
  readonly manner: Manner;
}

/** Seldom enough to be no work for PostgreSQL that counts. */
const LOOK_EVERY_MS = 25;

/** Far beyond what any of the two needs: a resync that has stopped must end the bench, not hang it. */
export const patienceMs = (members: number): number => 120_000 + members * 30;

/**
 * Joins the room, waits until its state is whole, and compares it with the resident's.
 *
 * @throws Error if the join was not as the manner has it, the resync does not end, or the state is not the resident's
 */
export async function measureJoin(joining: Joining): Promise<JoinFigures> {
  const { product, resident } = joining;
  const database = new pg.Client({ connectionString: product.databaseUrl });
  // A connection that is lost fails the next query.
  database.on("error", () => undefined);
  await database.connect();
  try {
    if (joining.manner === "full") await resident.call("trouble", { kind: "full-join", at: "send_join" });
    return await measureOn(database, joining);
  } finally {
    if (joining.manner === "full") await resident.call("clearTrouble");
    await database.end();
  }
}

async function measureOn(database: pg.Client, joining: Joining): Promise<JoinFigures> {
  const { product, client, resident, roomId } = joining;
  const processes = await product.processes();
  for (const pid of Object.values(processes.own)) forgetPeak(pid);
  const before = cpuOf(processes);
  const logged = product.logLength();
  const from = performance.now();
  await client.join(roomId, resident.serverNames[0] ?? "");
  const joined = performance.now();
  const room = { ...joining, database };
  const receiving = joining.manner === "receiving" ? receiveMeanwhile(room) : undefined;
  const sending = joining.manner === "sending" ? sendMeanwhile(room) : undefined;
  await untilWhole(product, { database, roomId, patienceMs: patienceMs(joining.members) });
  const settled = performance.now();
  const sent = await sending?.ended();
  const received = await receiving?.ended();
  const figures = usageSince(processes, before);
  await assertSameProcesses(product, processes);
  await assertAsked(joining);
  await assertSameState(joining);
  return {
    joinReturns: (joined - from) / 1000,
    resyncEnds: (settled - joined) / 1000,
    ...(received === undefined ? {} : { received }),
    ...(sent === undefined ? {} : { sent }),
    heldUp: product.heldUpSince(logged),
    ...figures,
  };
}

/** Named, so that it is parsed once. */
const LOOK = { name: "look", text: "SELECT 1 FROM partial_state_rooms WHERE room_id = $1" };

/** Both products keep a row in a table of this name for as long as the room's state is partial. */
export async function isPartial(database: pg.Client, roomId: RoomId): Promise<boolean> {
  const { rowCount } = await database.query({ ...LOOK, values: [roomId] });
  return rowCount !== 0;
}

interface Waiting {
  readonly database: pg.Client;
  readonly roomId: RoomId;
  readonly patienceMs: number;
}

/** @throws Error when the patience is at its end */
export async function untilWhole(product: Product, { database, roomId, patienceMs: patience }: Waiting): Promise<void> {
  const until = performance.now() + patience;
  while (await isPartial(database, roomId)) {
    if (performance.now() > until) {
      throw new Error(`the resync of ${product.name} has not ended after ${patience / 1000} s`);
    }
    await delay(LOOK_EVERY_MS);
  }
}

interface Cpu {
  readonly own: Readonly<Record<string, number>>;
  readonly postgres: number;
  readonly temporal: number;
}

/** Seconds of the processor that each has taken since its start. */
export function cpuOf({ own, postgres, temporal }: Processes): Cpu {
  return {
    own: Object.fromEntries(Object.entries(own).map(([part, pid]) => [part, cpuSecondsOf(pid)])),
    postgres: cpuSecondsOfFamily(postgres),
    temporal: temporal === undefined ? 0 : cpuSecondsOf(temporal),
  };
}

type Usage = Pick<JoinFigures, "cpu" | "postgresCpu" | "temporalCpu" | "peakMemory" | "parts">;

function usageSince(processes: Processes, before: Cpu): Usage {
  const now = cpuOf(processes);
  const parts = Object.fromEntries(
    Object.entries(processes.own).map(([part, pid]) => {
      const cpu = (now.own[part] ?? 0) - (before.own[part] ?? 0);
      return [part, { cpu, peakMemory: peakMebibytesOf(pid) }];
    }),
  );
  const all = Object.values(parts);
  return {
    cpu: all.reduce((sum, part) => sum + part.cpu, 0),
    postgresCpu: now.postgres - before.postgres,
    temporalCpu: now.temporal - before.temporal,
    peakMemory: Object.entries(parts).reduce(
      (sum, [name, part]) => sum + (name === SUPERVISOR ? 0 : part.peakMemory),
      0,
    ),
    parts,
  };
}

/** It stands for npm, or whatever else keeps the parts running. */
const SUPERVISOR = "supervisor";

async function assertSameProcesses(product: Product, before: Processes): Promise<void> {
  const now = await product.processes();
  if (JSON.stringify(now) !== JSON.stringify(before)) {
    throw new Error(`a process of ${product.name} was replaced while it was measured`);
  }
}

/** Both must have asked for a join without members; whether they got one is up to the resident. */
async function assertAsked({ product, resident, roomId }: Joining): Promise<void> {
  const asked = `/send_join/${roomId}/`;
  const requests = await resident.call("requests");
  const light = requests.some(({ origin, uri, status }) => {
    // Not all clients escape the same characters.
    const plain = decodeURIComponent(uri);
    const isOurs = origin === product.serverName && status === 200 && plain.includes(asked);
    return isOurs && plain.includes("omit_members=true");
  });
  if (!light) throw new Error(`${product.name} did not ask for a join without members`);
}

async function assertSameState({ product, client, resident, roomId }: Joining): Promise<void> {
  const theirs = new Map(await resident.call("fullState", roomId));
  const { compared, different } = compareStates(await client.fullState(roomId), theirs);
  if (different.length === 0) return;
  const shown = different.slice(0, 5).map((key) => key.replace("\u001f", " / "));
  throw new Error(
    `${product.name} holds a wrong state: ${different.length} of ${compared} entries differ, such as ${shown.join(", ")}`,
  );
}
