import { spawn, type ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { processIdentity } from "../../src/main/process-identity.ts";
import { readRunning, type Running } from "../../src/main/running-file.ts";
import { temporalCli } from "./temporal-cli.ts";

const ENTRY = fileURLToPath(new URL("../../src/main/fastjoin.ts", import.meta.url));
const COMMAND = ["--import", "tsx", ENTRY];
const BUILT = fileURLToPath(new URL("../../bin/fastjoin.js", import.meta.url));

/** Settings of a sidecar of its own: free ports, a data directory that goes after the test. */
export interface SidecarSettings {
  readonly dataDir: string;
  readonly env: Readonly<Record<string, string>>;
  remove(): Promise<void>;
}

export async function sidecarSettings(env: Readonly<Record<string, string>> = {}): Promise<SidecarSettings> {
  const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
  const inherited = Object.entries(process.env).filter(([name]) => !/^(FASTJOIN|TEMPORAL|DATABASE)_/.test(name));
  return {
    dataDir,
    env: {
      ...Object.fromEntries(inherited.map(([name, value]) => [name, value ?? ""])),
      FASTJOIN_DATA_DIR: dataDir,
      FASTJOIN_CLIENT_LISTEN: "127.0.0.1:0",
      FASTJOIN_FEDERATION_LISTEN: "127.0.0.1:0",
      FASTJOIN_FEDERATION_IP_BLOCKLIST: "",
      FASTJOIN_TEMPORAL_CLI: await temporalCli(),
      ...env,
    },
    remove: () => rm(dataDir, { recursive: true, force: true, maxRetries: 5 }),
  };
}

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface SidecarProcess {
  readonly child: ChildProcess;
  /** What it has printed so far. */
  readonly output: () => string;
  readonly finished: Promise<Finished>;
}

/** Starts one of the program's commands from the sources. */
export function spawnFastjoin(env: Readonly<Record<string, string>>, ...args: readonly string[]): SidecarProcess {
  return spawnProgram(env, [...COMMAND, ...args]);
}

/** The same as it is installed: what it takes of the machine is the product's, without that of a compiler. */
export function spawnBuiltFastjoin(env: Readonly<Record<string, string>>, ...args: readonly string[]): SidecarProcess {
  return spawnProgram(env, [BUILT, ...args]);
}

function spawnProgram(env: Readonly<Record<string, string>>, command: readonly string[]): SidecarProcess {
  const child = spawn(process.execPath, command, { env, stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const finished = new Promise<Finished>((resolve, reject) => {
    // "exit", not "close": what it leaves behind may hold the pipes open.
    child.once("exit", (code) => resolve({ code, stdout, stderr })).once("error", reject);
  });
  return { child, output: () => stdout + stderr, finished };
}

/** Runs one of the program's commands to its end. */
export function fastjoin(env: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<Finished> {
  return spawnFastjoin(env, ...args).finished;
}

/** Waits for what `look` finds. @throws Error after `withinMs`, with `about` in its message */
export async function eventually<T>(
  look: () => T | undefined | Promise<T | undefined>,
  { withinMs = 60_000, about = () => "it did not come about" }: { withinMs?: number; about?: () => string } = {},
): Promise<T> {
  const until = Date.now() + withinMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) {
      return found;
    }
    if (Date.now() > until) {
      throw new Error(about());
    }
    await delay(50);
  }
}

const PARTS = ["serve", "worker"];

/** Waits until `fastjoin start` has both halves at work. */
export async function untilRunning(
  { dataDir }: SidecarSettings,
  sidecar: SidecarProcess,
  accept: (running: Running) => boolean = () => true,
): Promise<Running> {
  return eventually(
    async () => {
      if (sidecar.child.exitCode !== null) {
        throw new Error(`the sidecar ended: ${sidecar.output()}`);
      }
      const running = await readRunning(dataDir);
      const complete = running !== undefined && PARTS.every((part) => running.processes[part] !== undefined);
      return complete && accept(running) ? running : undefined;
    },
    { withinMs: 90_000, about: () => `the sidecar is not ready: ${sidecar.output()}` },
  );
}

/** The processes of these ids that still live. */
export function living(pids: readonly number[]): readonly number[] {
  return pids.filter((pid) => processIdentity(pid) !== undefined);
}
