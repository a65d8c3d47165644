import express from "express";
import type { Logger } from "pino";
import { createClientApp } from "../client-api/app.ts";
import type { ClientApiContext } from "../client-api/context.ts";
import { createFederationApp } from "../federation-server/app.ts";
import type { JsonObject } from "../matrix/json.ts";
import { knownProgress } from "../operator/known-progress.ts";
import { createResyncWorkflows } from "../operator/resync-workflows.ts";
import { createOperatorRouter } from "../operator/router.ts";
import type { RoomsContext } from "../rooms/context.ts";
import { makeSenders } from "../rooms/appservices/act-as.ts";
import { startAppservicePushes } from "../rooms/appservices/push-to-services.ts";
import type { Reach } from "../rooms/failpoints.ts";
import { startExpiring } from "../rooms/edus/keep-expiring.ts";
import { startOutboxDelivery } from "../rooms/send/deliver-outbox.ts";
import { startForgettingFailedJoins } from "../rooms/upkeep/forget-failed-joins.ts";
import { startForgettingTransactions } from "../rooms/upkeep/forget-old-transactions.ts";
import { startReceivingWaitingPdus } from "../rooms/receive/receive-waiting-pdus.ts";
import { reconcileResyncs } from "../rooms/upkeep/reconcile-resyncs.ts";
import { createStreamWaiter } from "../rooms/read/stream-waiter.ts";
import { checkFiles } from "./check-surroundings.ts";
import { reportReady } from "./child-process-run.ts";
import { compose, type Composition } from "./compose.ts";
import type { Config } from "./config.ts";
import { watchEventLoop } from "./event-loop-watch.ts";
import { createHealthRouter } from "./health.ts";
import { keepTrying } from "./keep-trying.ts";
import { openListener, type Listener } from "./listener.ts";
import { createLogger } from "./logger.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { loadOperatorToken } from "./operator-token.ts";
import { SETTINGS } from "./settings.ts";
import { createShutdown, type Shutdown } from "./shutdown.ts";
import { loadFederationCertificate } from "./tls.ts";

const TOKEN_THAT_IS_SHORT = 16;

function warnOfShortToken(token: string, logger: Logger): void {
  if (token.length < TOKEN_THAT_IS_SHORT) {
    logger.warn(`${SETTINGS.operatorToken.variable} is short: whoever reaches the client listener can guess it`);
  }
}

async function clientContext(
  config: Config,
  { ctx, temporal }: Composition,
  metrics: Metrics,
): Promise<{ readonly context: ClientApiContext; readonly close: () => Promise<void> }> {
  const workflows = createResyncWorkflows({
    client: temporal.client,
    namespace: temporal.namespace,
    serverName: ctx.serverName,
    uiUrl: config.temporal.uiUrl,
    within: (work) => temporal.within(work),
  });
  const operator = { ...ctx, workflows };
  const token = await loadOperatorToken(config);
  warnOfShortToken(token, ctx.logger);
  const stream = createStreamWaiter(ctx.database);
  const context: ClientApiContext = {
    ...ctx,
    stream,
    registration: config.registration,
    resyncProgress: async (roomId) => (await knownProgress(operator, roomId)) as unknown as JsonObject,
    extraRouters: [
      createHealthRouter(ctx.database, temporal, () => true),
      metrics.router,
      createOperatorRouter(operator, token),
    ],
  };
  return { context, close: () => stream.close() };
}

/** Each takes some 50 KB; servers keep one or two open. */
const MAX_FEDERATION_CONNECTIONS = 2_000;

async function openListeners(
  config: Config,
  apps: { readonly client: express.Express; readonly federation: express.Express },
  { shutdown, logger }: { readonly shutdown: Shutdown; readonly logger: Logger },
): Promise<{ readonly clientUrl: string; readonly federationUrl: string }> {
  const open = async (name: string, listening: Promise<Listener>, together = true): Promise<string> => {
    const listener = await listening;
    shutdown.add({ name, stop: () => listener.close(), together });
    return listener.url;
  };
  return {
    federationUrl: await open(
      "federation listener",
      openListener(apps.federation, {
        variable: SETTINGS.federationListen.variable,
        listen: config.federationListen,
        certificate: await loadFederationCertificate(config),
        maxConnections: MAX_FEDERATION_CONNECTIONS,
        logger,
      }),
      false,
    ),
    clientUrl: await open(
      "client listener",
      openListener(apps.client, { variable: SETTINGS.clientListen.variable, listen: config.clientListen, logger }),
    ),
  };
}

function measured(metrics: Metrics, listener: "client" | "federation", app: express.Express): express.Express {
  const outer = express();
  outer.disable("x-powered-by");
  outer.use(metrics.measure(listener), app);
  return outer;
}

function federationApp(ctx: RoomsContext, metrics: Metrics): express.Express {
  return measured(metrics, "federation", createFederationApp(ctx));
}

/** A join may have been stored while Temporal was away: that must not wait for the schedule's next turn. */
async function reconcileAtStart(ctx: RoomsContext): Promise<void> {
  try {
    await reconcileResyncs(ctx);
  } catch (error) {
    ctx.logger.warn({ err: error }, "could not start the resyncs of partial rooms; the schedule will");
  }
}

/** `fastjoin serve`: the HTTP half, until a signal comes. */
export async function serve(config: Config, { reach }: { readonly reach?: Reach } = {}): Promise<void> {
  await checkFiles(config);
  const logger = createLogger(config.logLevel, { process: "serve" });
  const shutdown = createShutdown(logger);
  try {
    watchEventLoop(logger, shutdown);
    const composition = await compose({ config, logger, shutdown, process: "serve", reach });
    const { ctx } = composition;
    await makeSenders(ctx);
    const metrics = createMetrics(ctx.database);
    const client = await clientContext(config, composition, metrics);
    shutdown.add({ name: "stream waiter", stop: client.close });
    const urls = await openListeners(
      config,
      { client: measured(metrics, "client", createClientApp(client.context)), federation: federationApp(ctx, metrics) },
      { shutdown, logger },
    );
    const delivery = startOutboxDelivery(ctx);
    shutdown.add({ name: "delivery", stop: () => delivery.stop(), together: true });
    const pushes = startAppservicePushes(ctx);
    shutdown.add({ name: "pushes to application services", stop: () => pushes.stop(), together: true });
    const waiting = startReceivingWaitingPdus(ctx);
    shutdown.add({ name: "waiting PDUs", stop: () => waiting.stop(), together: true });
    const expiring = startExpiring(client.context);
    shutdown.add({ name: "expiring typing and presence", stop: () => expiring.stop(), together: true });
    const failedJoins = startForgettingFailedJoins(ctx);
    shutdown.add({ name: "forgetting failed joins", stop: () => failedJoins.stop(), together: true });
    const forgetting = startForgettingTransactions(ctx);
    shutdown.add({ name: "forgetting old transactions", stop: () => forgetting.stop(), together: true });
    logger.info(urls, "listening");
    reportReady(urls);
    const failure = "could not register the search attributes yet";
    void keepTrying(() => composition.temporal.searchAttributes(), { logger, shutdown, failure });
    void reconcileAtStart(ctx);
    await shutdown.stopped;
  } catch (error) {
    await shutdown.stop("the start failed");
    throw error;
  }
}
