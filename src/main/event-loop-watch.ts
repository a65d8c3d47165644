import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Logger } from "pino";
import type { Shutdown } from "./shutdown.ts";

const RESOLUTION_MS = 10;
const LOOK_EVERY_MS = 1_000;
const WORTH_TELLING_MS = 100;

/** Logs the longest time of each second in which the process did nothing but one thing, if somebody may have felt it. */
export function watchEventLoop(logger: Logger, shutdown: Shutdown): void {
  const delays = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delays.enable();
  const timer = setInterval(() => {
    // What is measured is the time between two looks.
    const heldUpMs = Math.round(delays.max / 1e6) - RESOLUTION_MS;
    delays.reset();
    if (heldUpMs >= WORTH_TELLING_MS) logger.info({ heldUpMs }, "the event loop was held up");
  }, LOOK_EVERY_MS);
  timer.unref();
  shutdown.add({
    name: "watch of the event loop",
    stop: () => {
      clearInterval(timer);
      delays.disable();
    },
  });
}
