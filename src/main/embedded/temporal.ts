import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, open, readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";

export interface EmbeddedTemporalOptions {
  /** The `temporal` executable. */
  readonly cli: string;
  readonly dataDir: string;
  readonly port: number;
  readonly uiPort: number;
  readonly logger: Logger;
}

const READY_WITHIN_MS = 30_000;

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}

async function lastLines(file: string): Promise<string> {
  const text = await readFile(file, "utf8");
  return text.trimEnd().split("\n").slice(-10).join("\n");
}

/** Printed once the server listens: that its ports answer does not tell whether it is ours that does. */
const BANNER = /^Temporal Server:/m;

interface Starting {
  readonly child: ChildProcess;
  readonly ports: readonly number[];
  readonly log: string;
  /** The log's length before this start. */
  readonly logStart: number;
}

async function untilReady({ child, ports, log, logStart }: Starting): Promise<void> {
  const until = Date.now() + READY_WITHIN_MS;
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) {
      const how = `exit code ${child.exitCode ?? child.signalCode}`;
      throw new Error(`the embedded Temporal ended at its start (${how}):\n${await lastLines(log)}`);
    }
    const announced = BANNER.test((await readFile(log)).subarray(logStart).toString());
    if (announced && (await Promise.all(ports.map(answers))).every(Boolean)) {
      return;
    }
    if (Date.now() > until) {
      child.kill("SIGKILL");
      throw new Error(`the embedded Temporal does not answer after ${READY_WITHIN_MS / 1000} s`);
    }
    await delay(50);
  }
}

/**
 * Starts Temporal's development server on loopback with its state in the data directory, and waits until it answers.
 * Its search attributes are there from the start.
 */
export async function startEmbeddedTemporal(options: EmbeddedTemporalOptions): Promise<ChildProcess> {
  const folder = join(options.dataDir, "temporal");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const logPath = join(folder, "temporal.log");
  // A file and no pipe: a pipe that nobody reads any more would end the server in the middle of its work.
  const log = await open(logPath, "a", 0o600);
  const { size: logStart } = await log.stat();
  const attributes = ["MatrixRoomId=Keyword", "ResyncPhase=Keyword", "PartialEvents=Int"];
  try {
    const child = spawn(
      options.cli,
      [
        "server",
        "start-dev",
        "--ip=127.0.0.1",
        `--port=${options.port}`,
        `--ui-port=${options.uiPort}`,
        `--db-filename=${join(folder, "temporal.db")}`,
        "--log-level=error",
        "--log-format=json",
        ...attributes.map((attribute) => `--search-attribute=${attribute}`),
      ],
      // A session of its own: Ctrl-C in the terminal is for us, and the resyncs are drained first.
      { stdio: ["ignore", log.fd, log.fd], detached: true, env: { ...process.env, DO_NOT_TRACK: "1" } },
    );
    const failed = new Promise<never>((_resolve, reject) => child.once("error", reject));
    const starting = { child, ports: [options.port, options.uiPort], log: logPath, logStart };
    await Promise.race([untilReady(starting), failed]);
    options.logger.info({ pid: child.pid, port: options.port, log: logPath }, "the embedded Temporal is ready");
    return child;
  } finally {
    await log.close();
  }
}
