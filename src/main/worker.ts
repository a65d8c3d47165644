import { NativeConnection, Worker, type WorkerOptions } from "@temporalio/worker";
import { existsSync } from "node:fs";
import { extname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { createActivities } from "../../activities/index.ts";
import { reportReady } from "./child-process-run.ts";
import { compose, type Composition } from "./compose.ts";
import type { Config } from "./config.ts";
import { createLogger } from "./logger.ts";
import { ensureReconcileSchedule } from "./reconcile-schedule.ts";
import { createShutdown, type Shutdown } from "./shutdown.ts";
import { DEFAULT_ADDRESS } from "./temporal-connection.ts";
import { installTemporalLogger } from "./temporal-logger.ts";

const AGAIN_MS = 5_000;

/** The bundle that the build made, beside the built sources; from the sources, the workflows themselves. */
function workflowSource(): Pick<WorkerOptions, "workflowBundle" | "workflowsPath"> {
  const bundle = fileURLToPath(new URL("../../workflow-bundle.js", import.meta.url));
  const index = fileURLToPath(new URL(`../../workflows/index${extname(import.meta.url)}`, import.meta.url));
  return existsSync(bundle) ? { workflowBundle: { codePath: bundle } } : { workflowsPath: index };
}

/** Connects, however long Temporal is away; undefined if the shutdown comes first. */
async function connect(config: Config, logger: Logger, shutdown: Shutdown): Promise<NativeConnection | undefined> {
  const { connectionOptions } = config.temporal;
  const address = connectionOptions.address ?? DEFAULT_ADDRESS;
  let stopped = false;
  void shutdown.stopped.then(() => (stopped = true));
  while (!stopped) {
    try {
      return await NativeConnection.connect({ ...connectionOptions, address });
    } catch (error) {
      logger.warn({ err: error, address }, "Temporal does not answer; trying again");
      await Promise.race([delay(AGAIN_MS, undefined, { ref: false }), shutdown.stopped]);
    }
  }
  return undefined;
}

/** What Temporal must know of us; tried again in the background, since work can be done without it. */
async function introduce({ ctx, temporal }: Composition, shutdown: Shutdown): Promise<void> {
  let stopped = false;
  void shutdown.stopped.then(() => (stopped = true));
  while (!stopped) {
    try {
      await temporal.searchAttributes();
      await ensureReconcileSchedule(temporal, ctx.serverName);
      return;
    } catch (error) {
      ctx.logger.warn({ err: error }, "could not register the reconcile schedule yet; trying again");
      await Promise.race([delay(AGAIN_MS, undefined, { ref: false }), shutdown.stopped]);
    }
  }
}

async function createWorker(connection: NativeConnection, config: Config, ctx: Composition["ctx"]): Promise<Worker> {
  return Worker.create({
    connection,
    namespace: config.temporal.namespace,
    taskQueue: config.temporal.taskQueue,
    activities: createActivities(ctx),
    ...workflowSource(),
    // A killed worker's tasks go to another after a second, not after ten.
    stickyQueueScheduleToStartTimeout: "1s",
    // Heartbeats leave the process as they are made, not every 4 s: a time-out of 5 s would leave no room for delays.
    maxHeartbeatThrottleInterval: "1s",
    shutdownGraceTime: "4s",
    shutdownForceTime: "8s",
  });
}

/** `fastjoin worker`: the resyncs, until a signal comes. */
export async function work(config: Config): Promise<void> {
  const logger = createLogger(config.logLevel, { process: "worker" });
  installTemporalLogger(logger);
  const shutdown = createShutdown(logger);
  try {
    const composition = await compose({ config, logger, shutdown, process: "worker" });
    const connection = await connect(config, logger, shutdown);
    if (connection === undefined) {
      return;
    }
    shutdown.add({ name: "worker connection", stop: () => connection.close() });
    const worker = await createWorker(connection, config, composition.ctx);
    const running = worker.run();
    shutdown.add({
      name: "worker",
      stop: async () => {
        if (worker.getState() === "RUNNING") {
          worker.shutdown();
        }
        await running;
      },
    });
    void introduce(composition, shutdown);
    reportReady();
    logger.info({ taskQueue: config.temporal.taskQueue }, "the worker polls");
    await Promise.race([running, shutdown.stopped]);
    await shutdown.stop("the worker ended");
  } catch (error) {
    await shutdown.stop("the worker failed");
    throw error;
  }
}
