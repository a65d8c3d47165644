import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { processIdentity } from "./process-identity.ts";

function isTaken(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

async function holderOf(path: string): Promise<string | undefined> {
  const identity = (await readFile(path, "utf8").catch(() => "")).trim();
  const pid = Number.parseInt(identity, 10);
  return Number.isInteger(pid) && processIdentity(pid) === identity ? String(pid) : undefined;
}

/**
 * Keeps two supervisors off one data directory. A lock whose holder is dead counts for nothing.
 *
 * @returns releases the lock
 */
export async function lockDataDir(dataDir: string): Promise<() => Promise<void>> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, "supervisor.lock");
  for (let attempt = 0; attempt < 3; attempt += 1) {
    try {
      await writeFile(path, `${processIdentity(process.pid) ?? process.pid}\n`, { flag: "wx", mode: 0o600 });
      return () => rm(path, { force: true });
    } catch (error) {
      if (!isTaken(error)) {
        throw error;
      }
      const holder = await holderOf(path);
      if (holder !== undefined) {
        throw new Error(`${dataDir} is in use by the sidecar with process id ${holder}`, { cause: error });
      }
      await rm(path, { force: true });
    }
  }
  throw new Error(`could not lock ${path}`);
}
