import { fork, type ChildProcess } from "node:child_process";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { FatalStart, type Run } from "./keep-running.ts";

/** The exit code of a process that no restart would help (sysexits' EX_CONFIG). */
export const EXIT_FATAL = 78;

const STOP_WITHIN_MS = 6_000;

/** This program's entry file: the built one in production, the source under a TypeScript loader. */
export const ENTRY_FILE = fileURLToPath(new URL(`./fastjoin${extname(import.meta.url)}`, import.meta.url));

function endOf(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once("exit", (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`));
    child.once("error", (error) => resolve(error.message));
  });
}

/** A child process as a run of a supervised part: stopped by SIGTERM, then by SIGKILL. */
export function runOfChild(child: ChildProcess): Run {
  const ended = child.exitCode !== null || child.signalCode !== null ? Promise.resolve("it had ended") : endOf(child);
  return {
    pid: child.pid,
    ended,
    stop: async () => {
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** What a child tells its supervisor once it does its work. */
export interface ReadyMessage {
  readonly ready: true;
  readonly urls?: Readonly<Record<string, string>>;
}

function isReady(message: unknown): message is ReadyMessage {
  return typeof message === "object" && message !== null && "ready" in message;
}

/** Tells the supervisor, if there is one, that this process does its work now. */
export function reportReady(urls: ReadyMessage["urls"] = {}): void {
  process.send?.({ ready: true, urls } satisfies ReadyMessage);
}

/**
 * What keeps a process small that has many threads of native code and reads far more than it keeps: without these,
 * malloc holds an arena a thread, and V8 lets young garbage grow to 48 MiB and the old to four times what is in use.
 * Who sets them otherwise has their way.
 */
const MEMORY_FLAGS = ["--max-semi-space-size=8", "--heap-growing-percent=30"];
const MEMORY_ENV = { MALLOC_ARENA_MAX: "2" };

/**
 * Starts one of this program's subcommands as a child with an IPC channel, whose closing tells the child that its
 * supervisor is gone.
 *
 * @throws FatalStart if the child says that no restart would help
 */
export async function forkSubcommand(
  subcommand: string,
  env: Readonly<Record<string, string>>,
  { signal, onReady }: { readonly signal: AbortSignal; readonly onReady: (message: ReadyMessage) => void },
): Promise<Run> {
  const child = fork(ENTRY_FILE, [subcommand], {
    env: { ...MEMORY_ENV, ...process.env, ...env },
    execArgv: [...MEMORY_FLAGS, ...process.execArgv],
    stdio: "inherit",
  });
  const run = runOfChild(child);
  const ready = new Promise<true>((resolve) => {
    child.on("message", (message) => {
      if (isReady(message)) {
        onReady(message);
        resolve(true);
      }
    });
  });
  const giveUp = () => void run.stop();
  signal.addEventListener("abort", giveUp, { once: true });
  const outcome = await Promise.race([ready, run.ended]);
  signal.removeEventListener("abort", giveUp);
  if (outcome === true) {
    return run;
  }
  const text = `${subcommand} ended at its start (${outcome})`;
  throw child.exitCode === EXIT_FATAL ? new FatalStart(text) : new Error(text);
}
