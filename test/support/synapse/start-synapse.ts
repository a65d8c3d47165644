import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { reservedPort } from "../reserved-port.ts";
import { writeHomeserverConfig } from "./homeserver-config.ts";
import { installSynapse } from "./install.ts";

export interface SynapseOptions {
  /** Of the federation listener and in the server name; a free one if it is left out. */
  readonly serverPort?: number;
  /** `sqlite` (the default), or the URL of an empty PostgreSQL database. */
  readonly database?: string;
  /** Made if absent; holds the configuration, key, database and log. */
  readonly dataDir: string;
  /** Put over the settings of tests, by their names at the top level of `homeserver.yaml`. */
  readonly overrides?: JsonObject;
}

/** A running Synapse. The functions of `synapse-client.ts` use it. */
export interface Synapse {
  /** `localhost:PORT`: the port is the federation listener's, so that nobody has to discover it. */
  readonly serverName: string;
  readonly federationPort: number;
  /** Plain HTTP, without a slash at the end. */
  readonly clientUrl: string;
  readonly dataDir: string;
  readonly pid: number;
  /** Stops this one process and waits for its end. */
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 120_000;
const STOP_TIMEOUT_MS = 10_000;

/**
 * Installs Synapse if need be, starts it on loopback, and waits until it answers. It dies with this process. With the
 * data directory and port of one that was stopped, it goes on as that server.
 *
 * @throws with the end of its log if it does not come up.
 */
export async function startSynapse(options: SynapseOptions): Promise<Synapse> {
  const python = await installSynapse();
  await mkdir(options.dataDir, { recursive: true });
  const federationPort = options.serverPort ?? (await reservedPort());
  const clientPort = await reservedPort();
  const serverName = `localhost:${federationPort}`;
  const { dataDir, database = "sqlite", overrides = {} } = options;
  const config = { serverName, federationPort, clientPort, dataDir, database, overrides };
  const configPath = await writeHomeserverConfig(config);
  const child = spawn(python, [join(import.meta.dirname, "run.py"), "-c", configPath], {
    cwd: dataDir,
    stdio: ["pipe", "ignore", "pipe"],
  });
  const errors: string[] = [];
  child.stderr.setEncoding("utf8").on("data", (text: string) => errors.push(text));
  const clientUrl = `http://127.0.0.1:${clientPort}`;
  try {
    await untilReady(child, clientUrl);
  } catch (error) {
    await stop(child);
    throw new Error(`Synapse did not start: ${errors.join("")}\n${await endOfLog(dataDir)}`, { cause: error });
  }
  const { pid } = child as { readonly pid: number };
  return { serverName, federationPort, clientUrl, dataDir, pid, stop: () => stop(child) };
}

async function untilReady(child: ChildProcess, clientUrl: string): Promise<void> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  for (;;) {
    if (hasEnded(child)) throw new Error(`it ended with ${child.exitCode ?? child.signalCode}`);
    // The client listener is opened last, behind the migrations and the federation listener.
    const answer = await fetch(`${clientUrl}/_matrix/client/versions`).catch(() => undefined);
    await answer?.arrayBuffer();
    if (answer?.ok === true) return;
    if (Date.now() > deadline) throw new Error(`it did not answer within ${START_TIMEOUT_MS} ms`);
    await sleep(50);
  }
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

async function stop(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
  await ended;
  clearTimeout(timer);
}

async function endOfLog(dataDir: string): Promise<string> {
  const log = await readFile(join(dataDir, "homeserver.log"), "utf8").catch(() => "(it wrote no log)");
  return log.slice(-4000);
}
