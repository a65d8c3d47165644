import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { call } from "./chat-client.ts";
import type { Narrator } from "./narrator.ts";
import type { Sidecar } from "./sidecar.ts";

export interface Watch {
  readonly narrator: Narrator;
  readonly sidecar: Sidecar;
  readonly roomId: string;
  /** When the room was joined, in milliseconds since the epoch. */
  readonly joinedAt: number;
  /** How many events there are to be known, by the resident. */
  readonly eventsToKnow: number;
}

export interface Resync {
  /** From the join. */
  readonly seconds: number;
  /** From the kill until the resync had something new to show; undefined if the worker was never killed. */
  readonly recoverySeconds: number | undefined;
}

interface ResyncReport {
  readonly state: "partial" | "complete";
  readonly link?: string;
  readonly workflow?: { readonly state: string; readonly progress?: { readonly phase: string } };
}

const GIVE_UP_AFTER_MS = 180_000;
const KILL_AT = 0.5;

const PHASES: Readonly<Record<string, string>> = {
  fetching: "fetching the rest",
  authorising: "checking again",
  waiting: "waiting to ask again",
  finishing: "putting it in place",
};

interface Kill {
  readonly pid: number;
  readonly at: number;
  /** Events that were stored by then. */
  readonly known: number;
}

/** What the watch remembers from one look to the next. */
interface Sight {
  known: number;
  phase: string;
  killed: Kill | undefined;
  recoveredAt: number | undefined;
  replaced: boolean;
}

export async function operator<T>(sidecar: Sidecar, path: string): Promise<T> {
  return await call<T>(sidecar.clientUrl, `GET /_fastjoin/v1${path}`, undefined, sidecar.operatorToken);
}

export async function reportOn(watch: Pick<Watch, "sidecar" | "roomId">): Promise<ResyncReport> {
  return await operator(watch.sidecar, `/resyncs/${encodeURIComponent(watch.roomId)}`);
}

/** Draws the resync until it has ended, and kills the worker half-way. */
export async function watchResync(watch: Watch): Promise<Resync> {
  const from = Date.now();
  const sight: Sight = { known: 0, phase: "", killed: undefined, recoveredAt: undefined, replaced: false };
  const database = new pg.Client({ connectionString: watch.sidecar.databaseUrl });
  await database.connect();
  try {
    while (Date.now() - from < GIVE_UP_AFTER_MS) {
      const report = await reportOn(watch);
      await look(watch, sight, { report, database });
      if (report.state === "complete") return ended(watch, sight);
      await delay(150);
    }
  } finally {
    watch.narrator.endProgress();
    await database.end();
  }
  throw new Error(`the resync has not ended after ${GIVE_UP_AFTER_MS / 1000} s`);
}

function ended(watch: Watch, sight: Sight): Resync {
  watch.narrator.progress(1, "the whole state is known");
  const { killed } = sight;
  const recoveredAt = sight.recoveredAt ?? Date.now();
  return {
    seconds: (Date.now() - watch.joinedAt) / 1000,
    recoverySeconds: killed === undefined ? undefined : (recoveredAt - killed.at) / 1000,
  };
}

async function look(
  watch: Watch,
  sight: Sight,
  { report, database }: { readonly report: ResyncReport; readonly database: pg.Client },
): Promise<void> {
  sight.known = await countEvents(database, watch.roomId);
  sight.phase = report.workflow?.progress?.phase ?? sight.phase;
  const share = sight.known / watch.eventsToKnow;
  await followWorker(watch, sight);
  if (sight.killed === undefined && share >= KILL_AT && report.state === "partial") {
    await killWorker(watch, sight);
    // Counted after the kill: what came in before it is not its successor's work.
    sight.known = await countEvents(database, watch.roomId);
    if (sight.killed !== undefined) sight.killed = { ...(sight.killed as Kill), known: sight.known };
  }
  const { killed } = sight;
  if (killed !== undefined && sight.recoveredAt === undefined && sight.known > killed.known) {
    sight.recoveredAt = Date.now();
    watch.narrator.note(`The work goes on, ${((sight.recoveredAt - killed.at) / 1000).toFixed(1)} s after the kill.`);
  }
  watch.narrator.progress(Math.min(share, 0.99), captionOf(sight, watch.eventsToKnow));
}

function captionOf(sight: Sight, all: number): string {
  const count = `${sight.known} of ${all} events`;
  if (sight.killed !== undefined && sight.recoveredAt === undefined) {
    return `${count}; ${sight.replaced ? "the new worker takes over" : "no worker is at work"}`;
  }
  const phase = PHASES[sight.phase];
  return phase === undefined ? count : `${count}; ${phase}`;
}

async function countEvents(database: pg.Client, roomId: string): Promise<number> {
  const { rows } = await database.query<{ count: number }>(
    "SELECT count(*)::int AS count FROM events WHERE room_id = $1",
    [roomId],
  );
  return rows[0]?.count ?? 0;
}

async function killWorker(watch: Watch, sight: Sight): Promise<void> {
  const { worker } = await watch.sidecar.processes();
  if (worker === undefined) return;
  process.kill(worker, "SIGKILL");
  sight.killed = { pid: worker, at: Date.now(), known: sight.known };
  watch.narrator.note(`Half of it is there. Now the worker (process ${worker}) is killed with SIGKILL: no clean-up.`);
}

async function followWorker(watch: Watch, sight: Sight): Promise<void> {
  if (sight.killed === undefined || sight.replaced) return;
  const { worker } = await watch.sidecar.processes();
  if (worker === undefined || worker === sight.killed.pid) return;
  sight.replaced = true;
  const seconds = ((Date.now() - sight.killed.at) / 1000).toFixed(1);
  watch.narrator.note(`A new worker (process ${worker}) is up ${seconds} s later. Temporal hands it the open step.`);
}
