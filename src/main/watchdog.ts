import { spawn, type ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { processIdentity } from "./process-identity.ts";

/**
 * A process that outlives the supervisor by a moment: it holds the other end of a pipe, is told which processes there
 * are, and ends them when the pipe closes, however the supervisor died.
 */

const GRACE_MS = 8_000;

function signal(identities: ReadonlyMap<number, string>, name: NodeJS.Signals): boolean {
  const alive = [...identities].filter(([pid, identity]) => processIdentity(pid) === identity);
  for (const [pid] of alive) {
    try {
      process.kill(pid, name);
    } catch (error) {
      process.stderr.write(`watchdog: could not end process ${pid}: ${String(error)}\n`);
    }
  }
  return alive.length > 0;
}

async function endAll(identities: ReadonlyMap<number, string>): Promise<void> {
  if (!signal(identities, "SIGTERM")) {
    return;
  }
  const until = Date.now() + GRACE_MS;
  while (Date.now() < until) {
    await delay(100);
    if (![...identities].some(([pid, identity]) => processIdentity(pid) === identity)) {
      return;
    }
  }
  signal(identities, "SIGKILL");
}

/** The watchdog's own main function: lines `+PID` and `-PID` on standard input; its end is the signal to act. */
export async function runWatchdog(): Promise<void> {
  // A Ctrl-C reaches the whole terminal group; the watchdog must stay to the last.
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(name, () => undefined);
  }
  const identities = new Map<number, string>();
  for await (const line of createInterface({ input: process.stdin })) {
    const pid = Number(line.slice(1));
    const identity = line.startsWith("+") ? processIdentity(pid) : undefined;
    if (identity === undefined) {
      identities.delete(pid);
    } else {
      identities.set(pid, identity);
    }
  }
  await endAll(identities);
}

export interface Watchdog {
  readonly watch: (pid: number) => void;
  readonly forget: (pid: number) => void;
  /** Lets the watchdog end; what is still watched is ended with it. */
  readonly release: () => void;
}

/** Starts the watchdog by `command` (this program's `watchdog` subcommand), in a process group of its own. */
export function startWatchdog(command: readonly [string, ...string[]]): Watchdog {
  const watched = new Set<number>();
  let released = false;
  let child = start();

  function start(): ChildProcess {
    const [program, ...args] = command;
    const process = spawn(program, args, { stdio: ["pipe", "ignore", "inherit"], detached: true });
    process.stdin?.on("error", () => undefined); // a closed pipe: `exit` follows and starts another
    process.once("exit", () => {
      if (!released) {
        child = start();
      }
    });
    for (const pid of watched) {
      process.stdin?.write(`+${pid}\n`);
    }
    process.unref();
    return process;
  }

  return {
    watch: (pid) => {
      watched.add(pid);
      child.stdin?.write(`+${pid}\n`);
    },
    forget: (pid) => {
      watched.delete(pid);
      child.stdin?.write(`-${pid}\n`);
    },
    release: () => {
      released = true;
      child.stdin?.end();
    },
  };
}
