import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const PROGRAM = join(import.meta.dirname, "resolve-state.ts");
const AT_MOST_MS = 300_000;

/**
 * Runs the measurement of state resolution in a process of its own, which nothing else has warmed up.
 *
 * @returns the table it prints
 */
export async function measureStateResolution(): Promise<string | undefined> {
  if (!existsSync(PROGRAM)) return undefined;
  const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", PROGRAM], { timeout: AT_MOST_MS });
  return stdout.trimEnd();
}
