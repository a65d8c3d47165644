import { loadClientConfigProfile, toClientOptions, type ClientConnectConfig } from "@temporalio/envconfig";
import { resolve } from "node:path";
import { defaultTaskQueue } from "../../workflows/contract.ts";
import type { ServerName } from "../matrix/identifiers.ts";
import type { RoomVersion } from "../matrix/room-versions.ts";
import {
  SETTINGS,
  TEMPORAL_VARIABLES,
  type FederationTls,
  type Listen,
  type Registration,
  type Setting,
  type TemporalVariable,
} from "./settings.ts";

export interface TemporalConfig {
  /** Undefined: nobody named one, so that `start` runs an embedded one. */
  readonly address: string | undefined;
  readonly namespace: string;
  readonly taskQueue: string;
  readonly connectionOptions: ClientConnectConfig["connectionOptions"];
  readonly uiUrl: string | undefined;
  /** A `temporal` executable for the embedded server. */
  readonly cli: string | undefined;
}

export interface Config {
  readonly serverName: ServerName;
  readonly clientListen: Listen;
  readonly federationListen: Listen;
  readonly federationTls: FederationTls;
  readonly verifyCertificates: boolean;
  readonly caFile: string | undefined;
  readonly ipBlocklist: readonly string[];
  readonly trustedKeyServers: readonly ServerName[];
  readonly defaultRoomVersion: RoomVersion;
  readonly registration: Registration;
  /** The registration files of application services. */
  readonly applicationServices: readonly string[];
  readonly operatorToken: string | undefined;
  readonly fullStateWaitMs: number;
  /** Absolute. */
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;
  readonly temporal: TemporalConfig;
  readonly logLevel: string;
  /** Variables that begin like ours and mean nothing: most likely misspelt. */
  readonly unknownVariables: readonly string[];
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Settings that can't be used; the message names each variable, what it held and what is allowed. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
  readonly code = "config.invalid";
}

function isSecret({ secret }: Pick<Setting<unknown>, "secret">, held: string): boolean {
  return typeof secret === "function" ? secret(held) : secret === true;
}

function complaint(
  setting: Pick<Setting<unknown>, "variable" | "secret" | "allowed">,
  held: string,
  why?: string,
): string {
  const shown = isSecret(setting, held) ? "a value that is not shown here" : JSON.stringify(held);
  const cause = why === undefined ? "" : `, which can't be used (${why})`;
  return `${setting.variable} holds ${shown}${cause}; allowed: ${setting.allowed}`;
}

function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function temporalComplaint(known: TemporalVariable, held: string): string | undefined {
  const { allowed, fits } = known;
  if (held === "" || allowed === undefined || fits === undefined) {
    return undefined;
  }
  try {
    return fits(held) ? undefined : complaint({ ...known, allowed }, held);
  } catch (error) {
    return complaint({ ...known, allowed }, held, inWords(error));
  }
}

type Values = { [K in keyof typeof SETTINGS]: (typeof SETTINGS)[K]["schema"]["_output"] };

function readSettings(env: Environment): Values {
  const complaints: string[] = [];
  const entries = Object.entries(SETTINGS).map(([name, setting]) => {
    const { success, data } = setting.schema.safeParse(env[setting.variable]);
    if (!success) {
      complaints.push(complaint(setting, env[setting.variable] ?? ""));
    }
    return [name, data];
  });
  for (const known of TEMPORAL_VARIABLES) {
    const wrong = temporalComplaint(known, env[known.variable] ?? "");
    complaints.push(...(wrong === undefined ? [] : [wrong]));
  }
  if (complaints.length > 0) {
    throw new ConfigError(complaints.join("\n"));
  }
  return Object.fromEntries(entries) as Values;
}

/** Whether the server name is one that only this machine can reach. */
export function isLoopbackName(serverName: ServerName): boolean {
  const host = serverName.replace(/:\d+$/, "");
  return host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}

function federationTls(given: FederationTls | undefined, serverName: ServerName): FederationTls {
  if (given) {
    return given;
  }
  if (isLoopbackName(serverName)) {
    return { kind: "self-signed" };
  }
  const { variable, allowed } = SETTINGS.federationTls;
  throw new ConfigError(
    `${variable} is not set, and must be since ${SETTINGS.serverName.variable} is ${JSON.stringify(serverName)}, ` +
      `not a loopback name; allowed: ${allowed}`,
  );
}

function temporalConfig(env: Environment, values: Values): TemporalConfig {
  const present = Object.entries(env).filter((entry): entry is [string, string] => !!entry[1]);
  try {
    const profile = loadClientConfigProfile({
      overrideEnvVars: Object.fromEntries(present),
      // A file is read only if it is asked for: one that lies in the home directory would surprise.
      disableFile: !env["TEMPORAL_CONFIG_FILE"] && !env["TEMPORAL_PROFILE"],
    });
    return {
      address: profile.address,
      namespace: profile.namespace ?? "default",
      taskQueue: values.taskQueue ?? defaultTaskQueue(values.serverName),
      connectionOptions: toClientOptions(profile).connectionOptions,
      uiUrl: values.temporalUi,
      cli: values.temporalCli,
    };
  } catch (error) {
    throw new ConfigError(`the TEMPORAL_* variables can't be used: ${inWords(error)}`, { cause: error });
  }
}

/**
 * Reads and checks all settings.
 *
 * @throws ConfigError that tells of every wrong variable at once
 */
export function loadConfig(env: Environment = process.env): Config {
  const all = readSettings(env);
  const { taskQueue: _taskQueue, temporalUi: _temporalUi, temporalCli: _temporalCli, ...values } = all;
  const known = new Set<string>(Object.values(SETTINGS).map(({ variable }) => variable));
  return {
    ...values,
    federationTls: federationTls(values.federationTls, values.serverName),
    dataDir: resolve(values.dataDir),
    temporal: temporalConfig(env, all),
    unknownVariables: Object.keys(env).filter((name) => name.startsWith("FASTJOIN_") && !known.has(name)),
  };
}

function describeRow(row: TemporalVariable, env: Environment): string {
  const held = env[row.variable];
  const value =
    held === undefined ? `not set (${row.unset})` : isSecret(row, held) && held !== "" ? "set, not shown" : held;
  const allowed = row.allowed === undefined ? "" : `\n    allowed: ${row.allowed}`;
  return `${row.variable} = ${value}\n    ${row.meaning}${allowed}\n`;
}

/** Every setting with its meaning, what is allowed, and what it holds now; secrets are masked. */
export function describeSettings(env: Environment = process.env): string {
  const rows: readonly TemporalVariable[] = [...Object.values(SETTINGS), ...TEMPORAL_VARIABLES];
  return rows.map((row) => describeRow(row, env)).join("");
}
