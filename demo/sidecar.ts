import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { freePort } from "../src/main/embedded/free-port.ts";
import { installTemporalCli } from "../src/main/embedded/temporal-cli.ts";
import { readRunning } from "../src/main/running-file.ts";
import type { Running } from "../src/main/running-file.ts";

const root = resolve(fileURLToPath(new URL("..", import.meta.url)));

/** A Fastjoin as `npm start` runs it, with its own PostgreSQL and Temporal. */
export interface Sidecar {
  readonly serverName: string;
  readonly clientUrl: string;
  readonly temporalUi: string;
  readonly databaseUrl: string;
  readonly operatorToken: string;
  readonly dataDir: string;
  readonly logFile: string;
  /** Process ids by part, as they are now. */
  processes(): Promise<Running["processes"]>;
  stop(): Promise<void>;
}

export interface SidecarOptions {
  readonly dataDir: string;
  /** The resident: its certificate is self-signed, it lives on loopback, and it knows every server's keys. */
  readonly notary: string;
  /** Run the sources instead of the build. */
  readonly fromSource: boolean;
}

const READY_WITHIN_MS = 120_000;

export async function startSidecar(options: SidecarOptions): Promise<Sidecar> {
  const { dataDir } = options;
  const port = await freePort();
  const serverName = `localhost:${port}`;
  const logFile = join(dataDir, "fastjoin.log");
  const env = {
    ...withoutSettings(process.env),
    FASTJOIN_SERVER_NAME: serverName,
    FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await freePort()}`,
    FASTJOIN_FEDERATION_LISTEN: `127.0.0.1:${port}`,
    FASTJOIN_FEDERATION_VERIFY_CERTIFICATES: "false",
    FASTJOIN_FEDERATION_IP_BLOCKLIST: "",
    FASTJOIN_TRUSTED_KEY_SERVERS: options.notary,
    FASTJOIN_REGISTRATION: "open",
    FASTJOIN_DATA_DIR: dataDir,
    // In the usual data directory, so that it is installed once and not for every demo.
    FASTJOIN_TEMPORAL_CLI: await installTemporalCli(join(root, ".fastjoin")),
  };
  const child = spawnFastjoin(env, logFile, options.fromSource);
  const stop = async (): Promise<void> => await stopChild(child);
  try {
    const running = await untilReady(child, dataDir, logFile);
    return {
      serverName,
      clientUrl: running.clientUrl ?? "",
      temporalUi: running.temporalUi ?? "",
      databaseUrl: running.databaseUrl ?? "",
      // Made at the first start, and read from here by the command line too.
      operatorToken: readFileSync(join(dataDir, "operator-token"), "utf8").trim(),
      dataDir,
      logFile,
      processes: async () => (await readRunning(dataDir))?.processes ?? {},
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** The demo shows the embedded default, whatever the shell it runs in is set up for. */
function withoutSettings(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const foreign = /^(FASTJOIN_|TEMPORAL_)|^DATABASE_URL$/;
  return Object.fromEntries(Object.entries(env).filter(([name]) => !foreign.test(name)));
}

/** With an IPC channel: when it closes, however the demo died, Fastjoin stops with all its parts. */
function spawnFastjoin(env: NodeJS.ProcessEnv, logFile: string, fromSource: boolean): ChildProcess {
  const log = openSync(logFile, "a");
  const entry = join(root, fromSource ? "src/main/fastjoin.ts" : "bin/fastjoin.js");
  const execArgv = fromSource ? ["--import", "tsx"] : [];
  const child = fork(entry, ["start"], { cwd: root, env, execArgv, stdio: ["ignore", log, log, "ipc"] });
  closeSync(log);
  return child;
}

async function untilReady(child: ChildProcess, dataDir: string, logFile: string): Promise<Running> {
  const until = Date.now() + READY_WITHIN_MS;
  while (Date.now() < until) {
    if (child.exitCode !== null || child.signalCode !== null) break;
    const running = await readRunning(dataDir);
    if (running?.clientUrl !== undefined && (await isReady(running))) return running;
    await delay(100);
  }
  throw new Error(`Fastjoin did not start. The end of its log, ${logFile}:\n${lastLines(logFile, 20)}`);
}

async function isReady({ clientUrl = "", processes }: Running): Promise<boolean> {
  if (processes["worker"] === undefined) return false;
  return await fetch(`${clientUrl}/_fastjoin/ready`).then(
    (response) => response.ok,
    () => false,
  );
}

export function lastLines(file: string, count: number): string {
  return readFileSync(file, "utf8").trimEnd().split("\n").slice(-count).join("\n");
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}
