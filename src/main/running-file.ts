import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { processIdentity } from "./process-identity.ts";
import { readIfThere } from "./secret-file.ts";

const runningSchema = z.object({
  /** Process ids by part: `supervisor`, `postgres`, `temporal`, `serve`, `worker`. */
  processes: z.record(z.string(), z.number()),
  clientUrl: z.string().optional(),
  federationUrl: z.string().optional(),
  temporalAddress: z.string().optional(),
  temporalUi: z.string().optional(),
  /** Of the embedded PostgreSQL only: the address of a real one is the operator's secret. */
  databaseUrl: z.string().optional(),
});

/** What runs on a data directory and where it listens, for the command line. */
export type Running = z.infer<typeof runningSchema>;

function pathIn(dataDir: string): string {
  return join(dataDir, "running.json");
}

export async function writeRunning(dataDir: string, running: Running): Promise<void> {
  const path = pathIn(dataDir);
  await writeFile(`${path}.new`, `${JSON.stringify(running, undefined, 2)}\n`, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

export async function removeRunning(dataDir: string): Promise<void> {
  await rm(pathIn(dataDir), { force: true });
}

/** What runs on the data directory; undefined if nothing does, or if its supervisor died without a word. */
export async function readRunning(dataDir: string): Promise<Running | undefined> {
  const text = await readIfThere(pathIn(dataDir));
  const running = text === undefined ? undefined : runningSchema.parse(JSON.parse(text));
  const supervisor = running?.processes["supervisor"];
  return supervisor !== undefined && processIdentity(supervisor) !== undefined ? running : undefined;
}
