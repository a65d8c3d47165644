import { spawn, type ChildProcess } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../sidecar-process.ts";
import type { Point } from "./answers.ts";
import type { How, Order, Report } from "./orders.ts";

export type Half = "serve" | "worker" | "other worker";

/** The processes of a sidecar: of each half one at work, and one that is loaded and waits for its turn. */
export interface Cast {
  /** What has been reached since it was last emptied, and by which half. */
  readonly reached: Map<Point, Half>;
  /** Ends of processes that nobody has ordered, with what they said. */
  readonly unasked: string[];
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
}

/** A point at which someone is awaited. */
export interface Armed {
  /** Resolved with who came: it is dead, or waits. */
  readonly struck: Promise<Half>;
  /** Lets go who waits, and expects nobody any more. */
  disarm(): Promise<void>;
}

export interface CastOptions {
  /** The program and its arguments; which half it is comes between them. */
  readonly program: string;
  readonly workflowBundle: string;
  readonly env: Readonly<Record<string, string>>;
  readonly halves: readonly Half[];
  /** Whether processes that end begin again. */
  readonly restarts: boolean;
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

interface Troupe {
  readonly options: CastOptions;
  readonly reached: Map<Point, Half>;
  readonly unasked: string[];
  readonly atWork: Map<Half, Actor>;
  readonly waiting: Map<Half, Actor>;
  /** What those said that are at work no more. */
  readonly past: Map<Half, string>;
  /** Who was sent a signal by the test. */
  readonly expected: WeakSet<Actor>;
  listener: ((half: Half, report: Report | "died") => void) | undefined;
  closing: boolean;
  aheadMs: number;
}

export function openCast(options: CastOptions): Cast & { close(): Promise<void> } {
  const troupe: Troupe = {
    options,
    reached: new Map(),
    unasked: [],
    atWork: new Map(),
    waiting: new Map(),
    past: new Map(),
    expected: new WeakSet(),
    listener: undefined,
    closing: false,
    aheadMs: 0,
  };
  for (const half of options.halves) void begin(troupe, half);
  const { reached, unasked, past, atWork } = troupe;
  return {
    reached,
    unasked,
    arm: async (point, how, half) => await arm(troupe, { point, how }, half),
    untilReady: async (half) => await untilReady(troupe, half),
    pid: (half) => actorOf(troupe, half).child.pid ?? 0,
    signal: (half, name) => {
      const actor = actorOf(troupe, half);
      troupe.expected.add(actor);
      actor.child.kill(name);
    },
    kill: async (half) => {
      const { child, gone } = actorOf(troupe, half);
      child.kill("SIGKILL");
      await gone;
      if (options.restarts) await untilReady(troupe, half);
    },
    gone: async (half) => await actorOf(troupe, half).gone,
    shiftClock: async (aheadMs, half) => await shiftClock(troupe, aheadMs, half),
    output: (half) => (past.get(half) ?? "") + (atWork.get(half)?.output ?? ""),
    close: async () => await close(troupe),
  };
}

function actorOf({ atWork }: Troupe, half: Half): Actor {
  const actor = atWork.get(half);
  if (actor === undefined) throw new Error(`no ${half} is at work`);
  return actor;
}

function load(troupe: Troupe, half: Half): Actor {
  const { program, workflowBundle, env } = troupe.options;
  const child = spawn(process.execPath, [program, half === "serve" ? "serve" : "work", workflowBundle], {
    env,
    stdio: ["ignore", "pipe", "pipe", "ipc"],
  });
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
  child.on("message", (message) => hear(troupe, actor, message as Report | { readonly ready: true }));
  void gone.then((how) => noteEnd(troupe, actor, how));
  return actor;
}

function hear({ reached, listener }: Troupe, actor: Actor, told: Report | { readonly ready: true }): void {
  if ("ready" in told) {
    actor.ready = true;
    return;
  }
  if (told.report === "reached" && !reached.has(told.point)) reached.set(told.point, actor.half);
  listener?.(actor.half, told);
}

function noteEnd(troupe: Troupe, actor: Actor, how: string): void {
  const { atWork, past, expected, unasked } = troupe;
  const { half } = actor;
  if (atWork.get(half) !== actor || troupe.closing) return;
  past.set(half, actor.output);
  if (how !== "SIGKILL" && !expected.has(actor)) unasked.push(`${half} ended (${how}): ${actor.output.slice(-2000)}`);
  troupe.listener?.(half, "died");
  atWork.delete(half);
  if (troupe.options.restarts) void begin(troupe, half);
}

async function begin(troupe: Troupe, half: Half): Promise<void> {
  const { atWork, waiting } = troupe;
  const actor = waiting.get(half) ?? load(troupe, half);
  waiting.delete(half);
  atWork.set(half, actor);
  await actor.loaded;
  if (troupe.aheadMs !== 0) await order(actor, { order: "clock", aheadMs: troupe.aheadMs });
  actor.child.send({ order: "begin" } satisfies Order, () => undefined);
  await eventually(() => (actor.ready || troupe.closing || atWork.get(half) !== actor ? true : undefined), {
    withinMs: READY_WITHIN_MS,
    about: () => `${half} does not begin: ${actor.output}`,
  }).catch((error: unknown) => troupe.unasked.push(String(error)));
  if (!troupe.closing && troupe.options.restarts) waiting.set(half, load(troupe, half));
}

async function untilReady({ atWork, past }: Troupe, half: Half): Promise<void> {
  await eventually(() => (atWork.get(half)?.ready === true ? true : undefined), {
    withinMs: READY_WITHIN_MS,
    about: () => `${half} is not ready: ${past.get(half)?.slice(-2000)}\n${atWork.get(half)?.output.slice(-4000)}`,
  });
}

/** Settles when it was obeyed, or nobody is left to obey. */
async function order(actor: Actor, given: Order): Promise<void> {
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
}

async function orderAll({ atWork }: Troupe, given: Order): Promise<void> {
  await Promise.all([...atWork.values()].map((actor) => order(actor, given)));
}

async function arm(
  troupe: Troupe,
  { point, how }: { readonly point: Point; readonly how: How },
  only: Half | undefined,
): Promise<Armed> {
  const struck = new Promise<Half>((resolve) => {
    troupe.listener = (half, report) => {
      const came = report === "died" ? how === "die" : report.report === "held" && report.point === point;
      if (!came) return;
      // Whoever comes after it goes on.
      for (const [other, { child }] of troupe.atWork)
        if (other !== half) child.send({ order: "disarm" } satisfies Order, () => undefined);
      resolve(half);
    };
  });
  if (only === undefined) await orderAll(troupe, { order: "arm", point, how });
  else await order(actorOf(troupe, only), { order: "arm", point, how });
  const disarm = async (): Promise<void> => {
    troupe.listener = undefined;
    await orderAll(troupe, { order: "disarm" });
    await orderAll(troupe, { order: "go on" });
  };
  return { struck, disarm };
}

async function shiftClock(troupe: Troupe, aheadMs: number, half: Half | undefined): Promise<void> {
  if (half !== undefined) return await order(actorOf(troupe, half), { order: "clock", aheadMs });
  troupe.aheadMs = aheadMs;
  await orderAll(troupe, { order: "clock", aheadMs });
}

async function close(troupe: Troupe): Promise<void> {
  troupe.closing = true;
  const all = [...troupe.atWork.values(), ...troupe.waiting.values()];
  await Promise.all(
    all.map(async ({ child, gone }) => {
      child.kill("SIGCONT");
      child.kill("SIGKILL");
      await Promise.race([gone, delay(5_000)]);
    }),
  );
}
