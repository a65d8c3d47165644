import type { Logger } from "pino";
import { createAppserviceClient } from "../appservice-client/client.ts";
import { createFederationClient } from "../federation-client/client.ts";
import { createKeyRing } from "../federation-client/key-ring.ts";
import type { SigningKey } from "../matrix/signatures.ts";
import type { Appservices, RoomsContext } from "../rooms/context.ts";
import type { Reach } from "../rooms/failpoints.ts";
import { openDatabase, type Database } from "../storage/database.ts";
import { migrate } from "../storage/migrations.ts";
import { loadApplicationServices } from "./load-application-services.ts";
import { checkDataDir } from "./check-surroundings.ts";
import { ConfigError, type Config } from "./config.ts";
import { createResyncStarter } from "./resync-starter.ts";
import type { Shutdown } from "./shutdown.ts";
import { loadSigningKey } from "./signing-key.ts";
import { openTemporal, type TemporalLink } from "./temporal-connection.ts";
import { loadAuthorities } from "./tls.ts";

export interface Composition {
  readonly ctx: RoomsContext;
  readonly temporal: TemporalLink;
}

export interface ComposeOptions {
  readonly config: Config;
  readonly logger: Logger;
  readonly shutdown: Shutdown;
  /** Shown in PostgreSQL's list of connections. */
  readonly process: "serve" | "worker";
  /** What stands at the failpoints. */
  readonly reach?: Reach | undefined;
}

function withoutPassword(databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.password = "";
  url.searchParams.delete("password");
  return url.href;
}

/** Where a host has several addresses, the reasons are inside an AggregateError that has no message. */
function inWords(error: unknown): string {
  const errors: readonly unknown[] = error instanceof AggregateError ? error.errors : [error];
  return errors.map((one) => (one instanceof Error ? one.message : String(one))).join("; ");
}

async function openMigrated({ config, logger, shutdown, process }: ComposeOptions): Promise<Database> {
  const url = config.databaseUrl;
  if (url === undefined) {
    throw new ConfigError(
      `DATABASE_URL is not set, and must be for \`fastjoin ${process}\`; only \`fastjoin start\` brings its own PostgreSQL`,
    );
  }
  const applied = await migrate(url).catch((error: unknown) => {
    throw new Error(`the database of DATABASE_URL (${withoutPassword(url)}): ${inWords(error)}`, { cause: error });
  });
  if (applied.length > 0) {
    logger.info({ applied }, "migrated the database");
  }
  const database = openDatabase(url, {
    applicationName: `fastjoin ${process}`,
    onIdleError: (error) => logger.warn({ err: error }, "PostgreSQL closed a connection"),
  });
  shutdown.add({ name: "database", stop: () => database.close() });
  return database;
}

async function openFederation(
  { config, logger, shutdown }: ComposeOptions,
  database: Database,
  signingKey: SigningKey,
): Promise<Pick<RoomsContext, "federation" | "keyRing">> {
  const { serverName, ipBlocklist, verifyCertificates, trustedKeyServers, caFile } = config;
  const now = Date.now;
  const federation = createFederationClient({
    serverName,
    signingKey,
    database,
    ipBlocklist,
    verifyCertificates,
    extraAuthorities: await loadAuthorities(caFile),
    now,
  });
  shutdown.add({ name: "federation client", stop: () => federation.close() });
  const keyRing = createKeyRing({
    database,
    client: federation,
    serverName,
    signingKey,
    trustedKeyServers,
    now,
    onFailure: (failure) =>
      logger.info(
        { server: failure.server, code: failure.code, reason: failure.reason },
        "a server's keys can't be had",
      ),
  });
  return { federation, keyRing };
}

async function openAppservices({ config, shutdown }: ComposeOptions): Promise<Appservices> {
  const services = await loadApplicationServices(config);
  const client = createAppserviceClient();
  shutdown.add({ name: "application service client", stop: () => client.close() });
  return { services, client };
}

/** Puts together what both halves of the sidecar work with; what was opened is closed by the shutdown. */
export async function compose(options: ComposeOptions): Promise<Composition> {
  const { config, logger, shutdown } = options;
  for (const name of config.unknownVariables) {
    logger.warn({ name }, "an environment variable begins with FASTJOIN_ but is no setting; is it misspelt?");
  }
  await checkDataDir(config);
  const signingKey = await loadSigningKey(config.dataDir);
  const database = await openMigrated(options);
  const { federation, keyRing } = await openFederation(options, database, signingKey);
  const temporal = openTemporal(config.temporal, logger);
  shutdown.add({ name: "Temporal connection", stop: () => temporal.close() });
  const { serverName, fullStateWaitMs, defaultRoomVersion } = config;
  const ctx: RoomsContext = {
    serverName,
    signingKey,
    database,
    federation,
    keyRing,
    appservices: await openAppservices(options),
    resyncs: createResyncStarter(temporal, serverName),
    logger,
    now: Date.now,
    fullStateWaitMs,
    defaultRoomVersion,
    ...(options.reach && { reach: options.reach }),
  };
  return { ctx, temporal };
}
