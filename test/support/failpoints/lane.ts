import pg from "pg";
import { Client, Connection } from "@temporalio/client";
import { reservedPort } from "../reserved-port.ts";
import { openDatabase, type Database } from "../../../src/storage/database.ts";
import type { Resident } from "../../resident/resident.ts";
import { httpClient, type HttpClient } from "../http-client.ts";
import { settingsBeside } from "../sidecar-scene.ts";
import type { SidecarSettings } from "../sidecar-process.ts";
import { openCast, type Cast, type Half } from "./cast.ts";
import type { Grounds } from "./grounds.ts";

/** One sidecar: a `serve` and a `worker`, started again whenever they end, and whoever stands at their failpoints. */
export interface Lane extends Cast {
  readonly name: string;
  readonly serverName: string;
  readonly clientUrl: string;
  readonly settings: SidecarSettings;
  /** The test's own connections. */
  readonly database: Database;
  readonly temporal: Client;
  user(name: string): Promise<HttpClient>;
  close(): Promise<void>;
}

interface LaneOptions {
  readonly name: string;
  readonly env?: Readonly<Record<string, string>>;
  /** One `serve` and one worker, unless named. */
  readonly halves?: readonly Half[];
  /** Whether processes that end begin again. True. */
  readonly restarts?: boolean;
}

export async function openLane(grounds: Grounds, resident: Resident, options: LaneOptions): Promise<Lane> {
  const database = await newDatabase(grounds, options.name);
  const settings = await settingsBeside(resident, {
    DATABASE_URL: database.url,
    TEMPORAL_ADDRESS: grounds.temporalAddress,
    FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await reservedPort()}`,
    FASTJOIN_REGISTRATION: "open",
    ...options.env,
  });
  const temporal = new Client({ connection: Connection.lazy({ address: grounds.temporalAddress }) });
  const halves = options.halves ?? ["serve", "worker"];
  const { program, workflowBundle } = grounds;
  const cast = openCast({ program, workflowBundle, env: settings.env, halves, restarts: options.restarts ?? true });
  const clientUrl = `http://${settings.env["FASTJOIN_CLIENT_LISTEN"]}`;
  const close = async (): Promise<void> => {
    await cast.close();
    await temporal.connection.close();
    await database.close();
    await settings.remove();
  };
  try {
    await Promise.all(halves.map((half) => cast.untilReady(half)));
  } catch (error) {
    await close();
    throw error;
  }
  return {
    ...cast,
    name: options.name,
    serverName: settings.env["FASTJOIN_SERVER_NAME"] ?? "",
    clientUrl,
    settings,
    database,
    temporal,
    user: async (name) => await register(clientUrl, name),
    close,
  };
}

async function newDatabase(grounds: Grounds, name: string): Promise<Database> {
  const admin = new pg.Client({ connectionString: grounds.postgresUrl });
  await admin.connect();
  try {
    await admin.query(`CREATE DATABASE ${admin.escapeIdentifier(name)}`);
  } finally {
    await admin.end();
  }
  const url = new URL(grounds.postgresUrl);
  url.pathname = `/${name}`;
  return openDatabase(url.href, { connections: 4 });
}

async function register(clientUrl: string, name: string): Promise<HttpClient> {
  const response = await fetch(`${clientUrl}/_matrix/client/v3/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ username: name, password: "correct horse", auth: { type: "m.login.dummy" } }),
  });
  const { user_id: userId, access_token: token } = (await response.json()) as Record<string, string>;
  if (userId === undefined || token === undefined) throw new Error(`${name} was not registered: ${response.status}`);
  return httpClient(clientUrl, userId, token);
}
