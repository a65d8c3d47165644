import { NativeConnection, Worker, type WorkerOptions } from "@temporalio/worker";
import { existsSync } from "node:fs";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Logger } from "pino";
import { createActivities } from "../../activities/index.ts";
import type { Reach } from "../rooms/failpoints.ts";
import { reportReady } from "./child-process-run.ts";
import { compose, type Composition } from "./compose.ts";
import type { Config } from "./config.ts";
import { keepTrying } from "./keep-trying.ts";
import { watchEventLoop } from "./event-loop-watch.ts";
import { createLogger } from "./logger.ts";
import { ensureReconcileSchedule } from "./reconcile-schedule.ts";
import { createShutdown, type Shutdown } from "./shutdown.ts";
import { DEFAULT_ADDRESS } from "./temporal-connection.ts";
import { installTemporalLogger } from "./temporal-logger.ts";

type WorkflowSource = Pick<WorkerOptions, "workflowBundle" | "workflowsPath">;

/** The bundle that the build made, beside the built sources; from the sources, the workflows themselves. */
function workflowSource(): WorkflowSource {
  const bundle = fileURLToPath(new URL("../../workflow-bundle.js", import.meta.url));
  const index = fileURLToPath(new URL(`../../workflows/index${extname(import.meta.url)}`, import.meta.url));
  return existsSync(bundle) ? { workflowBundle: { codePath: bundle } } : { workflowsPath: index };
}

/** Connects, however long Temporal is away; undefined if the shutdown comes first. */
async function connect(config: Config, logger: Logger, shutdown: Shutdown): Promise<NativeConnection | undefined> {
  const { connectionOptions } = config.temporal;
  const address = connectionOptions.address ?? DEFAULT_ADDRESS;
  return keepTrying(() => NativeConnection.connect({ ...connectionOptions, address }), {
    logger,
    shutdown,
    failure: `Temporal does not answer at ${address}`,
    againMs: 1_000,
  });
}

/** What Temporal must know of us; in the background, since work can be done without it. */
async function introduce({ ctx, temporal }: Composition, shutdown: Shutdown): Promise<void> {
  const { logger, serverName } = ctx;
  const failure = "could not register the reconcile schedule yet";
  await keepTrying(
    async () => {
      await temporal.searchAttributes();
      await ensureReconcileSchedule(temporal, serverName);
    },
    { logger, shutdown, failure },
  );
}

async function createWorker(
  connection: NativeConnection,
  config: Config,
  { ctx, workflows }: { readonly ctx: Composition["ctx"]; readonly workflows: WorkflowSource },
): Promise<Worker> {
  return Worker.create({
    connection,
    namespace: config.temporal.namespace,
    taskQueue: config.temporal.taskQueue,
    activities: createActivities(ctx),
    ...workflows,
    // A killed worker's tasks go to another after a second, not after ten.
    stickyQueueScheduleToStartTimeout: "1s",
    // Heartbeats leave the process as they are made, not every 4 s: a time-out of 5 s would leave no room for delays.
    maxHeartbeatThrottleInterval: "1s",
    shutdownGraceTime: "4s",
    shutdownForceTime: "8s",
  });
}

/** What a worker is given beside its settings. */
export interface WorkOptions {
  readonly reach?: Reach;
  /** Where the workflows come from, if not from the build or the sources. */
  readonly workflows?: WorkflowSource;
}

/** `fastjoin worker`: the resyncs, until a signal comes. */
export async function work(config: Config, { reach, workflows = workflowSource() }: WorkOptions = {}): Promise<void> {
  const logger = createLogger(config.logLevel, { process: "worker" });
  const shutdown = createShutdown(logger);
  try {
    watchEventLoop(logger, shutdown);
    const composition = await compose({ config, logger, shutdown, process: "worker", reach });
    // Not before: its threads would keep a process alive that fails at its start.
    installTemporalLogger(logger);
    const connection = await connect(config, logger, shutdown);
    if (connection === undefined) {
      return;
    }
    shutdown.add({ name: "worker connection", stop: () => connection.close() });
    if (shutdown.isStopping()) {
      return;
    }
    const worker = await createWorker(connection, config, { ctx: composition.ctx, workflows });
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
