import type { Logger } from "pino";

/** Ends one part of the process; parts end in the reverse of the order in which they began. */
export interface Part {
  readonly name: string;
  readonly stop: () => Promise<void> | void;
}

/** How long a process may take from the signal to its end. */
export const SHUTDOWN_MS = 10_000;

async function stopAll(parts: readonly Part[], logger: Logger): Promise<boolean> {
  let fine = true;
  for (const part of parts.toReversed()) {
    try {
      await part.stop();
    } catch (error) {
      fine = false;
      logger.error({ err: error, part: part.name }, "could not stop a part");
    }
  }
  return fine;
}

export interface Shutdown {
  /** Registers a part of the process that has begun. */
  readonly add: (part: Part) => void;
  /** Begins to stop; repeated calls wait for the first one's end. */
  readonly stop: (why: string) => Promise<void>;
  /** Settles once everything has stopped. */
  readonly stopped: Promise<void>;
}

/**
 * Stops the process's parts on SIGTERM, on SIGINT, and when the supervisor that started it is gone (its IPC channel
 * closes, however it died). What hangs for longer than 10 seconds is cut off.
 */
export function createShutdown(logger: Logger): Shutdown {
  const parts: Part[] = [];
  let resolve: () => void;
  const stopped = new Promise<void>((settle) => {
    resolve = settle;
  });
  let stopping: Promise<void> | undefined;

  async function run(why: string): Promise<void> {
    logger.info({ why }, "stopping");
    setTimeout(() => {
      logger.error("stopping took too long; cut off");
      process.exit(1);
    }, SHUTDOWN_MS).unref();
    if (!(await stopAll(parts, logger))) {
      process.exitCode = 1;
    }
    resolve();
  }

  const stop = (why: string): Promise<void> => (stopping ??= run(why));
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => void stop(signal));
  }
  if (process.channel) {
    process.on("disconnect", () => void stop("the supervisor is gone"));
    // The channel alone keeps nothing alive that has otherwise ended.
    process.channel.unref();
  }
  return { add: (part) => parts.push(part), stop, stopped };
}
