import type { Logger } from "pino";
import { createWakeUp } from "../wake-up.ts";

/** Work that is done in the background for as long as the process lives. */
export interface Upkeep {
  /** Waits for what is under way. */
  stop(): Promise<void>;
}

interface UpkeepOptions {
  readonly everyMs: number;
  readonly logger: Logger;
  /** What the log says where the work fails, which is no reason not to try it again. */
  readonly failure: string;
}

/** @param work told by `mayGoOn` when to leave the rest to the next time */
export function doNowAndThen(
  work: (mayGoOn: () => boolean) => Promise<void>,
  { everyMs, logger, failure }: UpkeepOptions,
): Upkeep {
  const bell = createWakeUp();
  let stopping = false;
  async function keepDoing(): Promise<void> {
    while (!stopping) {
      try {
        await work(() => !stopping);
      } catch (error) {
        logger.warn({ err: error }, failure);
      }
      await bell.sleep(everyMs);
    }
  }
  const done = keepDoing();
  return {
    async stop() {
      stopping = true;
      bell.ring();
      await done;
    },
  };
}
