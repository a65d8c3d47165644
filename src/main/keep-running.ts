import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";

/** One run of a supervised part. */
export interface Run {
  readonly pid: number | undefined;
  /** Settles when the run ends, with the cause in words. */
  readonly ended: Promise<string>;
  /** Asks the run to end, and sees to it that it does. */
  readonly stop: () => Promise<void>;
}

/** A part that the supervisor keeps running. */
export interface SupervisedPart {
  readonly name: string;
  /** Starts the part and settles once it does its work; when the signal aborts before that, the start is given up. */
  readonly start: (signal: AbortSignal) => Promise<Run>;
  /** After so many failures without one good start, everything stops: then it is the surroundings that are wrong. */
  readonly attempts?: number;
}

/** A failure that another attempt can't mend, such as a wrong setting: everything stops. */
export class FatalStart extends Error {
  override readonly name = "FatalStart";
  readonly code = "supervisor.fatal-start";
}

export interface KeepRunningOptions {
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Told of each run as it begins (with its process id) and as it ends (undefined). */
  readonly onProcess: (name: string, pid: number | undefined) => void;
  readonly clock?: Clock;
}

/** Time in milliseconds. */
export interface Clock {
  now(): number;
  /** Ends early when the signal aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
}

const REAL_CLOCK: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) => delay(ms, undefined, { signal }).catch(() => undefined),
};

const FIRST_WAIT_MS = 200;
const LONGEST_WAIT_MS = 30_000;
const GOOD_RUN_MS = 60_000;

async function runOnce(part: SupervisedPart, options: KeepRunningOptions, onStarted: () => void): Promise<void> {
  const run = await part.start(options.signal);
  options.onProcess(part.name, run.pid);
  onStarted();
  const aborted = new Promise<undefined>((resolve) => {
    const onAbort = () => resolve(undefined);
    options.signal.addEventListener("abort", onAbort, { once: true });
    if (options.signal.aborted) {
      onAbort();
    }
    void run.ended.then(() => options.signal.removeEventListener("abort", onAbort));
  });
  const why = await Promise.race([run.ended, aborted]);
  if (why === undefined) {
    await run.stop();
  } else {
    options.logger.error({ part: part.name, why }, "a part ended by itself; it is started again");
  }
  options.onProcess(part.name, undefined);
}

/**
 * Starts a part and starts it again whenever it ends, until the signal aborts; then stops it. Before a new start it
 * waits 0.2 seconds, then twice as long each time up to 30 s; a minute's good run makes it forget.
 *
 * @returns `started` settles when the part runs for the first time and rejects if it can't be started at all;
 *   `done` settles once the part has been stopped, and rejects when it is given up
 */
export function keepRunning(
  part: SupervisedPart,
  options: KeepRunningOptions,
): { readonly started: Promise<void>; readonly done: Promise<void> } {
  let onStarted: () => void;
  const started = new Promise<void>((resolve) => {
    onStarted = resolve;
  });

  async function loop(): Promise<void> {
    const clock = options.clock ?? REAL_CLOCK;
    let wait = FIRST_WAIT_MS;
    let attemptsLeft = part.attempts ?? Infinity;
    while (!options.signal.aborted) {
      const began = clock.now();
      try {
        await runOnce(part, options, () => {
          attemptsLeft = Infinity;
          onStarted();
        });
      } catch (error) {
        attemptsLeft -= 1;
        if (error instanceof FatalStart || attemptsLeft === 0) {
          throw error;
        }
        options.logger.error({ err: error, part: part.name }, "a part could not be started; it is tried again");
      }
      wait = clock.now() - began > GOOD_RUN_MS ? FIRST_WAIT_MS : wait;
      if (!options.signal.aborted) {
        await clock.sleep(wait, options.signal);
      }
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }

  const done = loop();
  return { started: Promise.race([started, done]), done };
}
