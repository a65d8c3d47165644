import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/** What /proc tells of processes: the time of the processor they took, and the most memory they held. */

/** Of utime and stime: Linux shows user space 100 a second on every architecture that Node.js runs on. */
const TICKS_PER_SECOND = 100;
const MEBIBYTE_IN_KIB = 1024;

/** Fields of /proc/PID/stat, counted behind the command's name, which may itself hold blanks and brackets. */
const PPID = 1;
const UTIME = 11;
const STIME = 12;
const CUTIME = 13;
const CSTIME = 14;

function statOf(pid: number): readonly number[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat
      .slice(stat.lastIndexOf(")") + 2)
      .split(" ")
      .map(Number);
  } catch {
    return undefined; // it ended
  }
}

const sumOf = (stat: readonly number[], fields: readonly number[]): number =>
  fields.reduce((sum, field) => sum + (stat[field] ?? 0), 0) / TICKS_PER_SECOND;

/** @throws Error if it has ended: what it took is lost, and with it the measurement */
export function cpuSecondsOf(pid: number): number {
  const stat = statOf(pid);
  if (stat === undefined) throw new Error(`process ${pid} has ended while it was measured`);
  return sumOf(stat, [UTIME, STIME]);
}

/** With the children that live and those that have ended: PostgreSQL has one for each connection. */
export function cpuSecondsOfFamily(pid: number): number {
  const parent = statOf(pid);
  if (parent === undefined) throw new Error(`process ${pid} has ended while it was measured`);
  let seconds = sumOf(parent, [UTIME, STIME, CUTIME, CSTIME]);
  for (const name of readdirSync("/proc")) {
    const child = /^\d+$/.test(name) ? statOf(Number(name)) : undefined;
    if (child?.[PPID] === pid) seconds += sumOf(child, [UTIME, STIME, CUTIME, CSTIME]);
  }
  return seconds;
}

/** The highest resident set since the start, or since `forgetPeak`. */
export function peakMebibytesOf(pid: number): number {
  const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  if (line === null) throw new Error(`/proc/${pid}/status has no VmHWM`);
  return Number(line[1]) / MEBIBYTE_IN_KIB;
}

/** From here on the peak is counted anew, from what the process holds now. */
export function forgetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}
