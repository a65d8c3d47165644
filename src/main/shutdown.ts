import type { Logger } from "pino";

/** Ends one part of the process; parts end in the reverse of the order in which they began. */
export interface Part {
  readonly name: string;
  readonly stop: () => Promise<void> | void;
  /** Ends at the same time as the part that began before it: each may need seconds, and all have ten. */
  readonly together?: boolean;
}

/** How long a process may take from the signal to its end. */
const SHUTDOWN_MS = 10_000;

/** Takes off the last part, and those that end together with it. */
function takeLast(parts: Part[]): readonly Part[] {
  const first = parts.findLastIndex(({ together = false }) => !together);
  return parts.splice(Math.max(0, first));
}

async function stopPart(part: Part, logger: Logger): Promise<void> {
  try {
    await part.stop();
  } catch (error) {
    process.exitCode = 1;
    logger.error({ err: error, part: part.name }, "could not stop a part");
  }
}

export interface Shutdown {
  /** Registers a part of the process that has begun; one that comes when all others have stopped is stopped at once. */
  readonly add: (part: Part) => void;
  /** Begins to stop; repeated calls wait for the first one's end. */
  readonly stop: (why: string) => Promise<void>;
  /** Whether it has begun. */
  readonly isStopping: () => boolean;
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
  let ended = false;

  async function run(why: string): Promise<void> {
    logger.info({ why }, "stopping");
    setTimeout(() => {
      logger.error("stopping took too long; cut off");
      process.exit(1);
    }, SHUTDOWN_MS).unref();
    while (parts.length > 0) {
      await Promise.all(takeLast(parts).map((part) => stopPart(part, logger)));
    }
    ended = true;
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
  const add = (part: Part): void => {
    if (ended) {
      void stopPart(part, logger);
    } else {
      parts.push(part);
    }
  };
  return { add, stop, isStopping: () => stopping !== undefined, stopped };
}
