import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, chown, mkdir, open, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import pg from "pg";
import type { Logger } from "pino";
import { readIfThere, readOrCreateSecretFile } from "../secret-file.ts";
import { freePort } from "./free-port.ts";
import { stopLeftover } from "./postgres-leftover.ts";
import { postgresBinaries, type PostgresBinaries } from "./postgres-binaries.ts";
import { postgresUser, type SystemUser } from "./postgres-user.ts";

export interface EmbeddedPostgresOptions {
  /** Its folder `postgres` holds the cluster, the password and the log. */
  readonly dataDir: string;
  /** Of loopback; 0 or none: any free one. */
  readonly port?: number;
  /** Name of the database in the URL; made if it is not there. */
  readonly database?: string;
  /** Further server settings, such as `fsync: "off"` for tests. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly logger?: Logger;
}

export interface EmbeddedPostgres {
  readonly url: string;
  /** Of the postmaster. */
  readonly pid: number;
  /** Settles when it has ended, whoever ended it, and tells how. */
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

interface Cluster {
  readonly folder: string;
  readonly data: string;
  readonly log: string;
  readonly password: string;
  readonly binaries: PostgresBinaries;
  readonly user: SystemUser | undefined;
}

const USER = "fastjoin";
const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 8_000;

/**
 * The process between us and PostgreSQL. It holds the read end of a pipe from us and stops PostgreSQL (SIGINT: at
 * once, but cleanly) when the pipe closes, which it does however we die; and it ends when PostgreSQL does.
 */
const KEEPER = `
exec 3<&0
"$@" </dev/null 3<&- &
postgres=$!
{ cat <&3 >/dev/null; kill -INT "$postgres" 2>/dev/null; } &
watcher=$!
exec 3<&-
wait "$postgres"
code=$?
kill "$watcher" 2>/dev/null
exit "$code"
`;

/**
 * Starts a PostgreSQL of our own on loopback, with its data in the data directory, and waits until it answers. It
 * never outlives this process; what an earlier one has left behind is stopped first.
 *
 * @throws Error if the data directory is in use by another living process, or PostgreSQL does not start: its log's
 *   last lines are in the message
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const cluster = await openCluster(options.dataDir);
  await stopLeftover(cluster.data);
  const port = await freePort(options.port);
  if (options.port !== undefined && options.port !== 0 && options.port !== port) {
    throw new Error(`port ${options.port} of 127.0.0.1 is taken: the embedded PostgreSQL can't start there`);
  }
  const keeper = await spawnPostgres(cluster, port, options.settings ?? {});
  const ended = new Promise<string>((settle) => {
    keeper.once("exit", (code, signal) => settle(signal === null ? `exit code ${code}` : `signal ${signal}`));
  });
  const stop = () => stopKeeper(keeper, cluster.data, ended);
  try {
    const pid = await untilReady(cluster, keeper);
    const url = await ensureDatabase(`postgres://${USER}:${cluster.password}@127.0.0.1:${port}`, options.database);
    options.logger?.info({ pid, port, log: cluster.log }, "the embedded PostgreSQL is ready");
    return { url, pid, ended, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

// ── The cluster ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function openCluster(dataDir: string): Promise<Cluster> {
  const [binaries, user] = await Promise.all([postgresBinaries(), postgresUser()]);
  const folder = join(resolve(dataDir), "postgres");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if (user) {
    // Its system user must be able to pass through (not to look into) the data directory, which is root's.
    await chmod(dataDir, 0o711);
    await chown(folder, user.uid, user.gid);
  }
  const password = await readOrCreateSecretFile(join(folder, "password"), () => randomBytes(24).toString("base64url"));
  const cluster = {
    folder,
    data: join(folder, "cluster"),
    log: join(folder, "postgres.log"),
    password,
    binaries,
    user,
  };
  if ((await readIfThere(join(cluster.data, "PG_VERSION"))) === undefined) await initialize(cluster);
  return cluster;
}

async function initialize(cluster: Cluster): Promise<void> {
  const draft = join(cluster.folder, "cluster.new");
  const passwordFile = join(cluster.folder, "password.new");
  // What an interrupted attempt has left.
  await rm(draft, { recursive: true, force: true });
  await writeFile(passwordFile, cluster.password, { mode: 0o600 });
  try {
    if (cluster.user) await chown(passwordFile, cluster.user.uid, cluster.user.gid);
    await promisify(execFile)(
      cluster.binaries.initdb,
      [
        `--pgdata=${draft}`,
        `--username=${USER}`,
        `--pwfile=${passwordFile}`,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
      ],
      { ...cluster.user, env: environment(), cwd: cluster.folder },
    );
    await rename(draft, cluster.data);
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    const hint = cluster.user
      ? "; as root, PostgreSQL runs as the system user postgres, who must be able to enter the data directory and node_modules"
      : "";
    throw new Error(`initdb failed: ${detail}${hint}`, { cause: error });
  } finally {
    await rm(passwordFile, { force: true });
  }
}

/** Ours without the variables that would change what the server's programs do. */
function environment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("PG") && !name.startsWith("LC_"));
  return { ...Object.fromEntries(inherited), LC_ALL: "C" };
}

// ── The process ─────────────────────────────────────────────────────────────────────────────────────────────────────

async function spawnPostgres(
  cluster: Cluster,
  port: number,
  settings: Readonly<Record<string, string>>,
): Promise<ChildProcess> {
  const all = { listen_addresses: "127.0.0.1", unix_socket_directories: "", port: String(port), ...settings };
  const flags = Object.entries(all).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
  const log = await open(cluster.log, "a", 0o600);
  try {
    const keeper = spawn(
      "/bin/sh",
      ["-c", KEEPER, "postgres-keeper", cluster.binaries.postgres, "-D", cluster.data, ...flags],
      {
        ...cluster.user,
        cwd: cluster.folder,
        env: environment(),
        stdio: ["pipe", log.fd, log.fd],
        // A session of its own: Ctrl-C in the terminal is for us, who may need the database to the last.
        detached: true,
      },
    );
    // The pipe breaks when PostgreSQL ends by itself; "exit" tells.
    keeper.stdin?.on("error", () => undefined);
    await new Promise<void>((started, failed) => {
      keeper.once("spawn", started).once("error", failed);
    });
    return keeper;
  } finally {
    await log.close();
  }
}

async function untilReady(cluster: Cluster, keeper: ChildProcess): Promise<number> {
  const until = Date.now() + READY_WITHIN_MS;
  while (Date.now() < until) {
    if (keeper.exitCode !== null || keeper.signalCode !== null) {
      throw new Error(`the embedded PostgreSQL ended at its start:\n${await lastLines(cluster.log)}`);
    }
    // The eighth line, the last that is written, says what the postmaster of the first line is doing.
    const lines = ((await readIfThere(join(cluster.data, "postmaster.pid"))) ?? "").split("\n");
    if (lines[7]?.trim() === "ready") return Number(lines[0]);
    await sleep(10);
  }
  throw new Error(`the embedded PostgreSQL is not ready after ${READY_WITHIN_MS / 1000} s`);
}

async function lastLines(file: string): Promise<string> {
  const text = await readFile(file, "utf8");
  return text.trimEnd().split("\n").slice(-10).join("\n");
}

async function stopKeeper(keeper: ChildProcess, data: string, ended: Promise<string>): Promise<void> {
  keeper.stdin?.end();
  const timer = new AbortController();
  const late = sleep(STOP_WITHIN_MS, "late", { signal: timer.signal }).catch(() => "in time");
  const why = await Promise.race([ended, late]);
  timer.abort();
  if (why === "late") {
    await stopLeftover(data, { force: true });
    await ended;
  }
}

async function ensureDatabase(server: string, name = "fastjoin"): Promise<string> {
  const client = new pg.Client({ connectionString: `${server}/postgres` });
  await client.connect();
  try {
    const found = await client.query("SELECT 1 FROM pg_database WHERE datname = $1", [name]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(name)}`);
  } finally {
    await client.end();
  }
  return `${server}/${encodeURIComponent(name)}`;
}
