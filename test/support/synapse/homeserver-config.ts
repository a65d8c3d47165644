import { randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { generate } from "selfsigned";
import type { JsonObject } from "../../../src/matrix/json.ts";

export interface HomeserverConfig {
  readonly serverName: string;
  readonly federationPort: number;
  readonly clientPort: number;
  readonly dataDir: string;
  /** `sqlite`, or the URL of an empty PostgreSQL database. */
  readonly database: string;
  /** Put over the settings of tests, by their names at the top level of `homeserver.yaml`. */
  readonly overrides?: JsonObject;
}

const NO_LIMIT = { per_second: 100_000, burst_count: 100_000 };

/** Writes all that Synapse reads at start into its data directory, and answers the path of `homeserver.yaml`. */
export async function writeHomeserverConfig(config: HomeserverConfig): Promise<string> {
  const file = (name: string) => join(config.dataDir, name);
  const certificate = await generate([{ name: "commonName", value: "localhost" }], { keySize: 2048 });
  await Promise.all([
    writeFile(file("tls.crt"), certificate.cert),
    writeFile(file("tls.key"), certificate.private, { mode: 0o600 }),
    writeSigningKey(file("signing.key")),
    writeFile(file("log.yaml"), JSON.stringify(loggingTo(file("homeserver.log")))),
    // JSON is YAML too.
    writeFile(file("homeserver.yaml"), JSON.stringify(settings(config, file), undefined, 2), { mode: 0o600 }),
  ]);
  return file("homeserver.yaml");
}

/** A Synapse that is started again on its data must sign as before: others have cached its key. */
async function writeSigningKey(path: string): Promise<void> {
  const text = `ed25519 a_test ${unpaddedBase64(randomBytes(32))}\n`;
  try {
    await writeFile(path, text, { mode: 0o600, flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

function unpaddedBase64(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/, "");
}

function loggingTo(path: string): object {
  return {
    version: 1,
    formatters: { plain: { format: "%(asctime)s %(name)s %(levelname)s %(request)s %(message)s" } },
    filters: { context: { "()": "synapse.logging.context.LoggingContextFilter" } },
    handlers: { file: { class: "logging.FileHandler", filename: path, formatter: "plain", filters: ["context"] } },
    root: { level: "INFO", handlers: ["file"] },
    disable_existing_loggers: false,
  };
}

function settings(config: HomeserverConfig, file: (name: string) => string): object {
  return {
    server_name: config.serverName,
    public_baseurl: `http://127.0.0.1:${config.clientPort}/`,
    listeners: [
      listener(config.federationPort, { tls: true, names: ["federation", "keys"] }),
      listener(config.clientPort, { tls: false, names: ["client"] }),
    ],
    tls_certificate_path: file("tls.crt"),
    tls_private_key_path: file("tls.key"),
    signing_key_path: file("signing.key"),
    log_config: file("log.yaml"),
    media_store_path: file("media"),
    database: databaseSettings(config.database, file("homeserver.db")),
    macaroon_secret_key: randomBytes(16).toString("hex"),
    form_secret: randomBytes(16).toString("hex"),
    registration_shared_secret: randomBytes(16).toString("hex"),
    enable_registration: true,
    enable_registration_without_verification: true,
    bcrypt_rounds: 4,
    report_stats: false,
    enable_metrics: false,
    stats: { enabled: false },
    user_directory: { enabled: false },
    presence: { enabled: true },
    ...LOOPBACK_FEDERATION,
    ...UNLIMITED,
    ...config.overrides,
  };
}

interface Resources {
  readonly tls: boolean;
  readonly names: readonly string[];
}

function listener(port: number, { tls, names }: Resources): object {
  return { type: "http", port, tls, bind_addresses: ["127.0.0.1"], resources: [{ names, compress: false }] };
}

/** Other servers live on loopback addresses with self-signed certificates, and come and go within seconds (in ms). */
const LOOPBACK_FEDERATION = {
  federation_verify_certificates: false,
  ip_range_blacklist: [],
  federation_ip_range_blacklist: [],
  trusted_key_servers: [],
  suppress_key_server_warning: true,
  federation: {
    client_timeout: 20_000,
    max_short_retry_delay: 1000,
    destination_min_retry_interval: 500,
    destination_max_retry_interval: 2000,
  },
};

const UNLIMITED = {
  rc_message: NO_LIMIT,
  rc_registration: NO_LIMIT,
  rc_login: { address: NO_LIMIT, account: NO_LIMIT, failed_attempts: NO_LIMIT },
  rc_joins: { local: NO_LIMIT, remote: NO_LIMIT },
  rc_joins_per_room: NO_LIMIT,
  rc_invites: { per_room: NO_LIMIT, per_user: NO_LIMIT, per_issuer: NO_LIMIT },
  rc_room_creation: NO_LIMIT,
  rc_profile: NO_LIMIT,
  rc_admin_redaction: NO_LIMIT,
  rc_federation: { window_size: 1000, sleep_limit: 100_000, sleep_delay: 1, reject_limit: 100_000, concurrent: 100 },
};

function databaseSettings(database: string, sqlitePath: string): object {
  if (database === "sqlite") return { name: "sqlite3", args: { database: sqlitePath } };
  const url = new URL(database);
  return {
    name: "psycopg2",
    // The databases of tests are made in the locale of the machine.
    allow_unsafe_locale: true,
    args: {
      host: url.hostname,
      port: Number(url.port || 5432),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      dbname: decodeURIComponent(url.pathname.slice(1)),
      cp_min: 2,
      cp_max: 10,
    },
  };
}
