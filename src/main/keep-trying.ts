import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import type { Shutdown } from "./shutdown.ts";

const AGAIN_MS = 5_000;

export interface KeepTryingOptions {
  readonly logger: Logger;
  readonly shutdown: Pick<Shutdown, "stopped" | "isStopping">;
  /** What is logged when an attempt fails. */
  readonly failure: string;
  readonly againMs?: number;
}

/** Does the work, again every five seconds while it fails. Undefined if the shutdown comes first; never rejects. */
export async function keepTrying<T>(
  work: () => Promise<T>,
  { logger, shutdown, failure, againMs = AGAIN_MS }: KeepTryingOptions,
): Promise<T | undefined> {
  while (!shutdown.isStopping()) {
    try {
      return await work();
    } catch (error) {
      logger.warn({ err: error }, `${failure}; trying again`);
      await Promise.race([delay(againMs, undefined, { ref: false }), shutdown.stopped]);
    }
  }
  return undefined;
}
