import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundleWorkflowCode } from "@temporalio/worker";
import { build } from "esbuild";
import { ENTRY_FILE } from "../../../src/main/child-process-run.ts";
import { reservedPort } from "../reserved-port.ts";
import { startEmbeddedPostgres, type EmbeddedPostgres } from "../../../src/main/embedded/postgres.ts";
import { startEmbeddedTemporal } from "../../../src/main/embedded/temporal.ts";
import { createLogger } from "../../../src/main/logger.ts";
import { startWatchdog } from "../../../src/main/watchdog.ts";
import { temporalCli } from "../temporal-cli.ts";

/** PostgreSQL, Temporal and the bundled program, which several sidecars share. */
export interface Grounds {
  readonly temporalAddress: string;
  /** `process.ts` and all of the product that it loads. */
  readonly program: string;
  readonly workflowBundle: string;
  /** Of a server's database; made when it is first connected to by `newDatabase`. */
  readonly postgresUrl: string;
  /** Of PostgreSQL's first process. */
  readonly postgresPid: number;
  /** SIGKILL, waited for. */
  kill(part: GroundPart): Promise<void>;
  /** Starts it again on what it has left. */
  start(part: GroundPart): Promise<void>;
  close(): Promise<void>;
}

export type GroundPart = "postgres" | "temporal";

export interface GroundsOptions {
  /** Further settings of PostgreSQL. */
  readonly postgres?: Readonly<Record<string, string>>;
}

/** A commit that was answered is on the disk, as far as a process's end can tell: only a machine's crash may lose it. */
const POSTGRES_SETTINGS = { fsync: "off", synchronous_commit: "on", full_page_writes: "off", max_connections: "200" };

export async function openGrounds(options: GroundsOptions = {}): Promise<Grounds> {
  const folder = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
  const ports = { postgres: await reservedPort(), temporal: await reservedPort(), ui: await reservedPort() };
  const logger = createLogger("silent", { process: "test" });
  const cli = await temporalCli();
  // Neither outlives this process, however it ends.
  const watchdog = startWatchdog([process.execPath, "--import", "tsx", ENTRY_FILE, "watchdog"]);
  let postgres: EmbeddedPostgres | undefined;
  let temporal: ChildProcess | undefined;
  const startPostgres = async (): Promise<EmbeddedPostgres> => {
    const settings = { ...POSTGRES_SETTINGS, ...options.postgres };
    const started = await startEmbeddedPostgres({ dataDir: folder, port: ports.postgres, settings });
    watchdog.watch(started.pid);
    return started;
  };
  const startTemporal = async (): Promise<ChildProcess> => {
    const started = await startEmbeddedTemporal({
      cli,
      dataDir: folder,
      port: ports.temporal,
      uiPort: ports.ui,
      logger,
    });
    if (started.pid !== undefined) watchdog.watch(started.pid);
    return started;
  };
  const kill = async (part: GroundPart): Promise<void> => {
    if (part === "postgres") {
      if (postgres !== undefined) process.kill(postgres.pid, "SIGKILL");
      await postgres?.ended;
    } else if (temporal !== undefined) {
      const ended = once(temporal, "exit");
      temporal.kill("SIGKILL");
      await ended;
    }
  };
  const bundled = Promise.all([bundleProgram(folder), bundleWorkflows(folder)]);
  [postgres, temporal] = await Promise.all([startPostgres(), startTemporal()]);
  const [program, workflowBundle] = await bundled;
  return {
    temporalAddress: `127.0.0.1:${ports.temporal}`,
    program,
    workflowBundle,
    postgresUrl: postgres.url,
    get postgresPid() {
      return postgres?.pid ?? 0;
    },
    kill,
    start: async (part) => {
      if (part === "postgres") postgres = await startPostgres();
      else temporal = await startTemporal();
    },
    close: async () => {
      if (temporal?.exitCode === null && temporal.signalCode === null) await kill("temporal");
      await postgres?.stop();
      watchdog.release();
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

/** Puts the sources into two files: a process that loads them is there in a third of the time. */
async function bundleProgram(folder: string): Promise<string> {
  await Promise.all(["node_modules", "prisma"].map((name) => symlink(join(ROOT, name), join(folder, name))));
  await build({
    entryPoints: {
      process: join(ROOT, "test/support/failpoints/process.ts"),
      "signature-thread": join(ROOT, "src/rooms/events/signature-thread.ts"),
    },
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    logLevel: "error",
  });
  return join(folder, "process.mjs");
}

async function bundleWorkflows(folder: string): Promise<string> {
  const silent = createLogger("silent", { process: "test" });
  const { code } = await bundleWorkflowCode({
    workflowsPath: fileURLToPath(new URL("../../../workflows/index.ts", import.meta.url)),
    logger: {
      trace: () => {},
      debug: () => {},
      info: () => {},
      warn: () => {},
      error: (message) => silent.error(message),
      log: () => {},
    },
  });
  const path = join(folder, "workflows.js");
  await writeFile(path, code);
  return path;
}
