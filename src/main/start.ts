import { ENTRY_FILE } from "./child-process-run.ts";
import type { Config } from "./config.ts";
import { createLogger } from "./logger.ts";
import { createShutdown } from "./shutdown.ts";
import { supervise } from "./supervise.ts";
import { startWatchdog } from "./watchdog.ts";

/** `npm start`: everything, until a signal comes. */
export async function start(config: Config): Promise<void> {
  const logger = createLogger(config.logLevel, { process: "supervisor" });
  const watchdog = startWatchdog([process.execPath, ...process.execArgv, ENTRY_FILE, "watchdog"]);
  const shutdown = createShutdown(logger);
  shutdown.add({ name: "watchdog", stop: watchdog.release });
  try {
    const running = await supervise({ config, logger, shutdown, watchdog });
    logger.info(
      {
        client: running.clientUrl,
        federation: running.federationUrl,
        temporal: running.temporalAddress ?? config.temporal.address,
        temporalUi: running.temporalUi ?? config.temporal.uiUrl,
        dataDir: config.dataDir,
      },
      `${config.serverName} is ready`,
    );
    await shutdown.stopped;
  } catch (error) {
    await shutdown.stop("the start failed");
    throw error;
  }
}
