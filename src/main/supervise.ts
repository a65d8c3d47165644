import type { Logger } from "pino";
import { forkSubcommand, runOfChild, type ReadyMessage } from "./child-process-run.ts";
import type { Config } from "./config.ts";
import { lockDataDir } from "./data-dir-lock.ts";
import { freePort } from "./embedded/free-port.ts";
import { startEmbeddedPostgres } from "./embedded/postgres.ts";
import { installTemporalCli } from "./embedded/temporal-cli.ts";
import { startEmbeddedTemporal } from "./embedded/temporal.ts";
import { keepRunning, type SupervisedPart } from "./keep-running.ts";
import { removeRunning, writeRunning, type Running } from "./running-file.ts";
import type { Shutdown } from "./shutdown.ts";
import type { Watchdog } from "./watchdog.ts";

export interface SuperviseOptions {
  readonly config: Config;
  readonly logger: Logger;
  readonly shutdown: Shutdown;
  readonly watchdog: Watchdog;
}

/** What the parts have told of themselves so far. */
type Board = { -readonly [K in keyof Running]: Running[K] };

/** Starts parts, keeps them running, and keeps `running.json` up to date. */
interface Supervisor extends SuperviseOptions {
  readonly board: Board;
  /** Writes the board down; the last state wins. */
  readonly publish: () => void;
}

/** @returns whether all of the parts run; otherwise the shutdown has come first */
async function superviseParts(supervisor: Supervisor, parts: readonly SupervisedPart[]): Promise<boolean> {
  const { logger, watchdog, shutdown, board } = supervisor;
  const abort = new AbortController();
  const running = parts.map((part) =>
    keepRunning(part, {
      logger,
      signal: abort.signal,
      onProcess: (name, pid) => {
        const before = board.processes[name];
        if (before !== undefined) {
          watchdog.forget(before);
          delete board.processes[name];
        }
        if (pid !== undefined) {
          watchdog.watch(pid);
          board.processes[name] = pid;
        }
        supervisor.publish();
      },
    }),
  );
  for (const { done } of running) {
    done.catch((error: unknown) => {
      logger.fatal({ err: error }, "stopping: this needs someone to look at it");
      process.exitCode = 1;
      void shutdown.stop("a part can't be started");
    });
  }
  shutdown.add({
    name: parts.map(({ name }) => name).join(", "),
    stop: async () => {
      abort.abort();
      await Promise.allSettled(running.map(({ done }) => done));
    },
  });
  await Promise.race([Promise.all(running.map(({ started }) => started)), shutdown.stopped]);
  return !shutdown.isStopping();
}

/** A port that was free may be taken a moment later, so once is not enough. */
const EMBEDDED_ATTEMPTS = 3;

/** The ports of a part's first good start, kept from then on: others have been told of them. */
function portsOf(preferred: readonly number[]): {
  take: () => Promise<readonly number[]>;
  keep: (ports: readonly number[]) => void;
} {
  let kept: readonly number[] | undefined;
  return {
    take: async () => kept ?? Promise.all(preferred.map((port) => freePort(port))),
    keep: (ports) => {
      kept = ports;
    },
  };
}

function temporalPart({ config, logger, board }: Supervisor): SupervisedPart {
  const ports = portsOf([7233, 8233]);
  return {
    name: "temporal",
    attempts: EMBEDDED_ATTEMPTS,
    start: async () => {
      const cli = config.temporal.cli ?? (await installTemporalCli(config.dataDir));
      const taken = await ports.take();
      const [port = 0, uiPort = 0] = taken;
      const run = runOfChild(await startEmbeddedTemporal({ cli, dataDir: config.dataDir, port, uiPort, logger }));
      ports.keep(taken);
      board.temporalAddress = `127.0.0.1:${port}`;
      board.temporalUi = `http://127.0.0.1:${uiPort}`;
      return run;
    },
  };
}

function postgresPart({ config, logger, board }: Supervisor): SupervisedPart {
  const ports = portsOf([5433]);
  return {
    name: "postgres",
    attempts: EMBEDDED_ATTEMPTS,
    start: async () => {
      const taken = await ports.take();
      const postgres = await startEmbeddedPostgres({ dataDir: config.dataDir, port: taken[0] ?? 0, logger });
      ports.keep(taken);
      board.databaseUrl = postgres.url;
      return { pid: postgres.pid, ended: postgres.ended, stop: () => postgres.stop() };
    },
  };
}

function subcommandPart(
  name: "serve" | "worker",
  supervisor: Supervisor,
  onReady: (urls: NonNullable<ReadyMessage["urls"]>) => void,
): SupervisedPart {
  const { board } = supervisor;
  return {
    name,
    start: (signal) =>
      forkSubcommand(
        name,
        {
          ...(board.databaseUrl !== undefined && { DATABASE_URL: board.databaseUrl }),
          ...(board.temporalAddress !== undefined && { TEMPORAL_ADDRESS: board.temporalAddress }),
          ...(board.temporalUi !== undefined && { FASTJOIN_TEMPORAL_UI: board.temporalUi }),
        },
        { signal, onReady: (message) => onReady(message.urls ?? {}) },
      ),
  };
}

function embeddedParts(supervisor: Supervisor): readonly SupervisedPart[] {
  const { config } = supervisor;
  return [
    ...(config.databaseUrl === undefined ? [postgresPart(supervisor)] : []),
    ...(config.temporal.address === undefined ? [temporalPart(supervisor)] : []),
  ];
}

/**
 * `npm start`: embedded PostgreSQL and Temporal where no real ones are named, then `serve` and `worker`, each kept
 * running, until the shutdown. Settles once all parts do their work; undefined if the shutdown comes before that.
 */
export async function supervise(options: SuperviseOptions): Promise<Running | undefined> {
  const { config, logger, shutdown } = options;
  const unlock = await lockDataDir(config.dataDir);
  shutdown.add({ name: "lock of the data directory", stop: unlock });
  const board: Board = { processes: { supervisor: process.pid } };
  let written = Promise.resolve();
  const supervisor: Supervisor = {
    ...options,
    board,
    publish: () => {
      const running = structuredClone(board);
      written = written
        .then(() => writeRunning(config.dataDir, running))
        .catch((error: unknown) => logger.error({ err: error }, "could not write running.json"));
    },
  };
  shutdown.add({ name: "running.json", stop: () => written.then(() => removeRunning(config.dataDir)) });
  const running =
    (await superviseParts(supervisor, embeddedParts(supervisor))) &&
    (await superviseParts(supervisor, [
      subcommandPart("serve", supervisor, (urls) => Object.assign(board, urls)),
      subcommandPart("worker", supervisor, () => undefined),
    ]));
  await written;
  return running ? board : undefined;
}
