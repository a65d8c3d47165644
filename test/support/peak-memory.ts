import { readFileSync } from "node:fs";

/** The most that a process has held of the machine's memory since it started, in MiB (Linux). */
export function peakMebibytes(pid: number): number {
  const peak = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  if (peak === undefined) throw new Error(`/proc/${pid}/status has no VmHWM`);
  return Number(peak) / 1024;
}
