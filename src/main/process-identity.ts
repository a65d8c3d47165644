import { readFileSync } from "node:fs";

function answersToSignals(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/**
 * A living process's id together with the time it began, so that a later process that was given the same id is not
 * taken for it; undefined if there is none. Without /proc (macOS) the id has to do.
 */
export function processIdentity(pid: number): string | undefined {
  if (process.platform !== "linux") {
    return answersToSignals(pid) ? String(pid) : undefined;
  }
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Counted behind the command's name, which may itself hold blanks and brackets: state, and field 22, the start.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" ? undefined : `${pid}@${fields[19]}`;
  } catch {
    return undefined; // it ended, perhaps while it was looked at
  }
}
