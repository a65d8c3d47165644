import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { processIdentity } from "../process-identity.ts";
import { readIfThere } from "../secret-file.ts";

const GRACE_MS = 3_000;
const STOP_WITHIN_MS = 10_000;

/**
 * Ends the PostgreSQL that an earlier process has left running on a cluster, and takes away the pid file that a crash
 * has left: its number may by now be another process's, and PostgreSQL would refuse to start.
 *
 * An orphan is stopped by its own keeper as soon as its owner is dead; so it is given a moment. One that goes on
 * after that belongs to a living process.
 *
 * @throws Error if the cluster is in use by a living process
 */
export async function stopLeftover(data: string, options: { readonly force?: boolean } = {}): Promise<void> {
  const file = join(data, "postmaster.pid");
  const pid = Number.parseInt((await readIfThere(file)) ?? "", 10);
  if (!Number.isInteger(pid)) return;
  const identity = processIdentity(pid);
  if (identity === undefined || !isPostgresOf(pid, data)) {
    await rm(file, { force: true });
    return;
  }
  const gone = () => processIdentity(pid) !== identity;
  if (options.force !== true) {
    if (await within(GRACE_MS, gone)) return removeIfThere(file, pid);
    if (!isOrphan(pid)) throw new Error(`${data} is in use by another process's PostgreSQL (process id ${pid})`);
  }
  for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    if (!gone()) process.kill(pid, signal);
    if (await within(STOP_WITHIN_MS, gone)) return removeIfThere(file, pid);
  }
  throw new Error(`the PostgreSQL with process id ${pid}, left on ${data}, could not be ended`);
}

/** Not one that another process has written meanwhile. */
async function removeIfThere(file: string, pid: number): Promise<void> {
  if (Number.parseInt((await readIfThere(file)) ?? "", 10) === pid) await rm(file, { force: true });
}

async function within(milliseconds: number, done: () => boolean): Promise<boolean> {
  const until = Date.now() + milliseconds;
  while (!done()) {
    if (Date.now() > until) return false;
    await sleep(20);
  }
  return true;
}

/** Where there is no /proc (macOS), the id of a living process is all there is to go by. */
function isPostgresOf(pid: number, data: string): boolean {
  if (process.platform !== "linux") return true;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(data);
  } catch {
    return false; // it has ended
  }
}

/** Its keeper is gone: it has been handed to the first process, or to one that reaps orphans. */
function isOrphan(pid: number): boolean {
  if (process.platform !== "linux") return true;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const parent = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
    return !readFileSync(`/proc/${parent}/cmdline`, "utf8").split("\0").includes("postgres-keeper");
  } catch {
    return true; // it or its parent has ended
  }
}
