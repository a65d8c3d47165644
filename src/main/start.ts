import type { Logger } from "pino";
import { checkDataDir, checkFiles } from "./check-surroundings.ts";
import { ENTRY_FILE } from "./child-process-run.ts";
import type { Config } from "./config.ts";
import { createLogger } from "./logger.ts";
import type { Running } from "./running-file.ts";
import { createShutdown } from "./shutdown.ts";
import { supervise } from "./supervise.ts";
import { startWatchdog } from "./watchdog.ts";

/** For whoever sits at the terminal: where everything is. */
function welcome(config: Config, running: Running): string {
  const lines = [
    `${config.serverName} is ready`,
    `  client API      ${running.clientUrl ?? ""}`,
    `  federation API  ${running.federationUrl ?? ""}`,
    `  Temporal        ${running.temporalAddress ?? config.temporal.address ?? ""}`,
    `  Temporal UI     ${running.temporalUi ?? config.temporal.uiUrl ?? "(set FASTJOIN_TEMPORAL_UI)"}`,
    `  data            ${config.dataDir}`,
  ];
  return `\n${lines.join("\n")}\n\n`;
}

function announce(config: Config, running: Running, logger: Logger): void {
  const { databaseUrl: _secret, ...told } = running;
  logger.info(told, `${config.serverName} is ready`);
  if (process.stdout.isTTY) {
    process.stdout.write(welcome(config, running));
  }
}

/** `npm start`: everything, until a signal comes. */
export async function start(config: Config): Promise<void> {
  await checkDataDir(config);
  await checkFiles(config);
  const logger = createLogger(config.logLevel, { process: "supervisor" });
  const watchdog = startWatchdog([process.execPath, ...process.execArgv, ENTRY_FILE, "watchdog"]);
  const shutdown = createShutdown(logger);
  shutdown.add({ name: "watchdog", stop: watchdog.release });
  try {
    const running = await supervise({ config, logger, shutdown, watchdog });
    if (running !== undefined) {
      announce(config, running, logger);
    }
    await shutdown.stopped;
  } catch (error) {
    await shutdown.stop("the start failed");
    throw error;
  }
}
