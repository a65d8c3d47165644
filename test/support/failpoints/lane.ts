import { spawn, type ChildProcess } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import { Client, Connection } from "@temporalio/client";
import { freePort } from "../../../src/main/embedded/free-port.ts";
import { openDatabase, type Database } from "../../../src/storage/database.ts";
import type { Resident } from "../../resident/resident.ts";
import { httpClient, type HttpClient } from "../http-client.ts";
import { settingsBeside } from "../sidecar-scene.ts";
import { eventually, type SidecarSettings } from "../sidecar-process.ts";
import type { Point } from "./answers.ts";
import type { Grounds } from "./grounds.ts";
import type { How, Order, Report } from "./orders.ts";

export type Half = "serve" | "worker" | "other worker";

/** One sidecar: a `serve` and a `worker`, started again whenever they end, and whoever stands at their failpoints. */
export interface Lane {
  readonly name: string;
  readonly serverName: string;
  readonly clientUrl: string;
  readonly settings: SidecarSettings;
  /** The test's own connections. */
  readonly database: Database;
  readonly temporal: Client;
  /** What has been reached since it was last emptied, and by which half. */
  readonly reached: Map<Point, Half>;
  /** Ends of processes that nobody has ordered, with what they said. */
  readonly unasked: string[];
  user(name: string): Promise<HttpClient>;
  /** At one half, or at whichever comes first. */
  arm(point: Point, how: How, half?: Half): Promise<Armed>;
  /** The half has both been started and is at work. */
  untilReady(half: Half): Promise<void>;
  pid(half: Half): number;
  signal(half: Half, name: NodeJS.Signals): void;
  /** SIGKILL, and another begins. */
  kill(half: Half): Promise<void>;
  /** Settles when the one that is at work has ended, and tells how: a signal's name, or `exit code N`. */
  gone(half: Half): Promise<string>;
  /** Of one half as it is now, or of all that are and come. */
  shiftClock(aheadMs: number, half?: Half): Promise<void>;
  output(half: Half): string;
  close(): Promise<void>;
}

/** A point at which someone is awaited. */
export interface Armed {
  /** Resolved with who came: it is dead, or waits. */
  readonly struck: Promise<Half>;
  /** Lets go who waits, and expects nobody any more. */
  disarm(): Promise<void>;
}

interface LaneOptions {
  readonly name: string;
  readonly env?: Readonly<Record<string, string>>;
  /** One `serve` and one worker, unless named. */
  readonly halves?: readonly Half[];
  /** Whether processes that end begin again. True. */
  readonly restarts?: boolean;
}

/** Many start at once, on a machine that may be busy with more. */
const READY_WITHIN_MS = 240_000;

interface Actor {
  readonly half: Half;
  readonly child: ChildProcess;
  readonly loaded: Promise<void>;
  /** Settles when it has ended, and tells how. */
  readonly gone: Promise<string>;
  output: string;
  ready: boolean;
}

export async function openLane(grounds: Grounds, resident: Resident, options: LaneOptions): Promise<Lane> {
  const database = await newDatabase(grounds, options.name);
  const settings = await settingsBeside(resident, {
    DATABASE_URL: database.url,
    TEMPORAL_ADDRESS: grounds.temporalAddress,
    FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await freePort()}`,
    FASTJOIN_REGISTRATION: "open",
    ...options.env,
  });
  const temporal = new Client({ connection: Connection.lazy({ address: grounds.temporalAddress }) });
  const halves = options.halves ?? ["serve", "worker"];
  const cast = castOf(settings, grounds, { halves, restarts: options.restarts ?? true });
  const clientUrl = `http://${settings.env["FASTJOIN_CLIENT_LISTEN"]}`;
  const close = async (): Promise<void> => {
    await cast.close();
    await temporal.connection.close();
    await database.close();
    await settings.remove();
  };
  try {
    await Promise.all(halves.map((half) => cast.untilReady(half)));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ...cast,
    name: options.name,
    serverName: settings.env["FASTJOIN_SERVER_NAME"] ?? "",
    clientUrl,
    settings,
    database,
    temporal,
    user: async (name) => await register(clientUrl, name),
    close,
  };
}

async function newDatabase(grounds: Grounds, name: string): Promise<Database> {
  const admin = new pg.Client({ connectionString: grounds.postgresUrl });
  await admin.connect();
  try {
    await admin.query(`CREATE DATABASE ${admin.escapeIdentifier(name)}`);
  } finally {
    await admin.end();
  }
  const url = new URL(grounds.postgresUrl);
  url.pathname = `/${name}`;
  return openDatabase(url.href, { connections: 4 });
}

async function register(clientUrl: string, name: string): Promise<HttpClient> {
  const response = await fetch(`${clientUrl}/_matrix/client/v3/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username: name, password: "correct horse", auth: { type: "m.login.dummy" } }),
  });
  const { user_id: userId, access_token: token } = (await response.json()) as Record<string, string>;
  if (userId === undefined || token === undefined) throw new Error(`${name} was not registered: ${response.status}`);
  return httpClient(clientUrl, userId, token);
}

type Cast = Pick<
  Lane,
  "reached" | "unasked" | "arm" | "untilReady" | "pid" | "signal" | "kill" | "gone" | "shiftClock" | "output"
> & { close(): Promise<void> };

/** The processes of a lane: of each half one at work, and one that is loaded and waits for its turn. */
function castOf(
  settings: SidecarSettings,
  grounds: Grounds,
  { halves, restarts }: { readonly halves: readonly Half[]; readonly restarts: boolean },
): Cast {
  const reached = new Map<Point, Half>();
  const unasked: string[] = [];
  const atWork = new Map<Half, Actor>();
  const waiting = new Map<Half, Actor>();
  const past = new Map<Half, string>();
  const expected = new WeakSet<Actor>();
  let listener: ((half: Half, report: Report | "died") => void) | undefined;
  let closing = false;
  let aheadMs = 0;

  const heard = (actor: Actor, message: unknown): void => {
    const told = message as Report | { readonly ready: true };
    if ("ready" in told) actor.ready = true;
    else {
      if (told.report === "reached" && !reached.has(told.point)) reached.set(told.point, actor.half);
      listener?.(actor.half, told);
    }
  };
  const ended = (actor: Actor, how: string): void => {
    if (atWork.get(actor.half) !== actor || closing) return;
    past.set(actor.half, actor.output);
    if (how !== "SIGKILL" && !expected.has(actor))
      unasked.push(`${actor.half} ended (${how}): ${actor.output.slice(-2000)}`);
    listener?.(actor.half, "died");
    atWork.delete(actor.half);
    if (restarts) void begin(actor.half);
  };
  const load = (half: Half): Actor => {
    const child = spawn(
      process.execPath,
      [grounds.program, half === "serve" ? "serve" : "work", grounds.workflowBundle],
      {
        env: settings.env,
        stdio: ["ignore", "pipe", "pipe", "ipc"],
      },
    );
    const loaded = new Promise<void>((resolve) => child.once("message", () => resolve()));
    const gone = new Promise<string>((resolve) => {
      child
        .once("exit", (code, signal) => resolve(signal ?? `exit code ${code}`))
        .once("error", (error) => resolve(error.message));
    });
    const actor: Actor = { half, child, loaded, gone, output: "", ready: false };
    const keep = (text: string): void => void (actor.output = (actor.output + text).slice(-100_000));
    child.stdout?.setEncoding("utf8").on("data", keep);
    child.stderr?.setEncoding("utf8").on("data", keep);
    child.on("message", (message) => heard(actor, message));
    void gone.then((how) => ended(actor, how));
    return actor;
  };
  const begin = async (half: Half): Promise<void> => {
    const actor = waiting.get(half) ?? load(half);
    waiting.delete(half);
    atWork.set(half, actor);
    await actor.loaded;
    if (aheadMs !== 0) await order(actor, { order: "clock", aheadMs });
    actor.child.send({ order: "begin" } satisfies Order);
    await eventually(() => (actor.ready || closing || atWork.get(half) !== actor ? true : undefined), {
      withinMs: READY_WITHIN_MS,
      about: () => `${half} does not begin: ${actor.output}`,
    }).catch((error: unknown) => unasked.push(String(error)));
    if (!closing && restarts) waiting.set(half, load(half));
  };
  const order = async (actor: Actor, given: Order): Promise<void> => {
    const ordered = new Promise<void>((resolve) => {
      const listen = (message: unknown): void => {
        if ((message as Report).report !== "ordered") return;
        actor.child.off("message", listen);
        resolve();
      };
      actor.child.on("message", listen);
    });
    if (!actor.child.connected) return;
    actor.child.send(given, () => undefined);
    await Promise.race([ordered, actor.gone]);
  };
  const orderAll = async (given: Order): Promise<void> => {
    await Promise.all([...atWork.values()].map((actor) => order(actor, given)));
  };
  const actorOf = (half: Half): Actor => {
    const actor = atWork.get(half);
    if (actor === undefined) throw new Error(`no ${half} is at work`);
    return actor;
  };
  const untilReady = async (half: Half): Promise<void> => {
    await eventually(() => (atWork.get(half)?.ready === true ? true : undefined), {
      withinMs: READY_WITHIN_MS,
      about: () => `${half} is not ready: ${past.get(half)?.slice(-2000)}\n${atWork.get(half)?.output.slice(-4000)}`,
    });
  };
  for (const half of halves) void begin(half);
  return {
    reached,
    unasked,
    untilReady,
    arm: async (point, how, only) => {
      const struck = new Promise<Half>((resolve) => {
        listener = (half, report) => {
          const came = report === "died" ? how === "die" : report.report === "held" && report.point === point;
          if (!came) return;
          // Whoever comes after it goes on.
          for (const [other, { child }] of atWork)
            if (other !== half) child.send({ order: "disarm" } satisfies Order, () => undefined);
          resolve(half);
        };
      });
      if (only === undefined) await orderAll({ order: "arm", point, how });
      else await order(actorOf(only), { order: "arm", point, how });
      const disarm = async (): Promise<void> => {
        listener = undefined;
        await orderAll({ order: "disarm" });
        await orderAll({ order: "go on" });
      };
      return { struck, disarm };
    },
    pid: (half) => actorOf(half).child.pid ?? 0,
    gone: async (half) => await actorOf(half).gone,
    signal: (half, name) => {
      const actor = actorOf(half);
      expected.add(actor);
      actor.child.kill(name);
    },
    kill: async (half) => {
      const { child, gone } = actorOf(half);
      child.kill("SIGKILL");
      await gone;
      if (restarts) await untilReady(half);
    },
    shiftClock: async (ms, half) => {
      if (half !== undefined) return await order(actorOf(half), { order: "clock", aheadMs: ms });
      aheadMs = ms;
      await orderAll({ order: "clock", aheadMs });
    },
    output: (half) => (past.get(half) ?? "") + (atWork.get(half)?.output ?? ""),
    close: async () => {
      closing = true;
      const all = [...atWork.values(), ...waiting.values()];
      await Promise.all(
        all.map(async ({ child, gone }) => {
          child.kill("SIGCONT");
          child.kill("SIGKILL");
          await Promise.race([gone, delay(5_000)]);
        }),
      );
    },
  };
}
