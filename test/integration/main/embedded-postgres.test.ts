import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import { afterAll, describe, expect, it } from "vitest";
import { startEmbeddedPostgres } from "../../../src/main/embedded/postgres.ts";
import { processIdentity } from "../../../src/main/process-identity.ts";

const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-embedded-"));
const children: ChildProcess[] = [];
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  // Their PostgreSQL ends a moment later, and must not find its files gone before.
  await sleep(500);
  await rm(dataDir, { recursive: true, force: true });
});

async function query(url: string, sql: string): Promise<readonly unknown[]> {
  const client = new pg.Client({ connectionString: url });
  client.on("error", () => undefined);
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

/** An owner in a process of its own, which can be killed. */
async function startOwner(): Promise<{ readonly child: ChildProcess; readonly url: string; readonly pid: number }> {
  const child = spawn(process.execPath, ["--import", "tsx", "test/support/embedded-postgres-owner.ts", dataDir], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  if (!child.stdout) throw new Error("no pipe");
  const lines = createInterface({ input: child.stdout });
  const [line] = (await once(lines, "line")) as [string];
  return { child, ...(JSON.parse(line) as { url: string; pid: number }) };
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, "exit");
  child.kill("SIGKILL");
  await exit;
}

async function untilGone(pid: number): Promise<void> {
  await expect.poll(() => processIdentity(pid)).toBeUndefined();
}

function parentOf(pid: number): number {
  const text = readFileSync(`/proc/${pid}/stat`, "utf8");
  return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
}

function childrenOf(pid: number): readonly number[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.map(Number).filter((candidate) => {
    try {
      return parentOf(candidate) === pid;
    } catch {
      return false; // it has ended
    }
  });
}

describe("startEmbeddedPostgres", () => {
  it("keeps its data from one start to the next, on loopback alone, behind a password", async () => {
    const first = await startEmbeddedPostgres({ dataDir });
    await query(first.url, "CREATE TABLE kept AS SELECT 1 AS answer");
    expect(await query(first.url, "SHOW listen_addresses")).toEqual([{ listen_addresses: "127.0.0.1" }]);
    expect(await query(first.url, "SHOW unix_socket_directories")).toEqual([{ unix_socket_directories: "" }]);
    expect(await query(first.url, "SHOW server_encoding")).toEqual([{ server_encoding: "UTF8" }]);
    expect(await query(first.url, "SELECT 'B' < 'a' AS by_bytes")).toEqual([{ by_bytes: true }]);
    const wrong = new URL(first.url);
    wrong.password = "guess";
    await expect(query(wrong.href, "SELECT 1")).rejects.toThrow(/password/);
    expect((await stat(join(dataDir, "postgres", "password"))).mode & 0o777).toBe(0o600);
    await first.stop();
    expect(await first.ended).toBe("exit code 0");
    const second = await startEmbeddedPostgres({ dataDir });
    expect(await query(second.url, "SELECT answer FROM kept")).toEqual([{ answer: 1 }]);
    await second.stop();
  });

  it("stops at once, whoever is connected", async () => {
    const postgres = await startEmbeddedPostgres({ dataDir });
    const sleeping = query(postgres.url, "SELECT pg_sleep(60)").catch(() => "cut off");
    await sleep(100);
    await postgres.stop();
    expect(await sleeping).toBe("cut off");
    await untilGone(postgres.pid);
  });

  it("tells when it ends by itself", async () => {
    const postgres = await startEmbeddedPostgres({ dataDir });
    process.kill(postgres.pid, "SIGKILL");
    expect(await postgres.ended).toBe("exit code 137");
    await postgres.stop();
  });

  it("does not outlive a killed owner", async () => {
    const owner = await startOwner();
    await kill(owner.child);
    await untilGone(owner.pid);
  });

  it("starts at once where the owner was killed a moment ago, and keeps what was committed", async () => {
    const owner = await startOwner();
    await query(owner.url, "CREATE TABLE committed AS SELECT 2 AS answer");
    await kill(owner.child);
    const next = await startEmbeddedPostgres({ dataDir });
    expect(await query(next.url, "SELECT answer FROM committed")).toEqual([{ answer: 2 }]);
    await next.stop();
  });

  it("ends an orphan that has lost its keeper as well", async () => {
    const owner = await startOwner();
    const keeper = parentOf(owner.pid);
    const watchers = childrenOf(keeper).filter((pid) => pid !== owner.pid);
    expect(watchers).toHaveLength(1);
    // The watchers before what they wait for, which would have them end PostgreSQL.
    const waitedFor = watchers.flatMap(childrenOf);
    for (const pid of [...watchers, ...waitedFor, keeper]) process.kill(pid, "SIGKILL");
    await kill(owner.child);
    await sleep(200);
    expect(processIdentity(owner.pid)).toBeDefined();
    const next = await startEmbeddedPostgres({ dataDir });
    expect(processIdentity(owner.pid)).toBeUndefined();
    expect(await query(next.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await next.stop();
  });

  it("does not touch a living process's PostgreSQL", async () => {
    const owner = await startOwner();
    await expect(startEmbeddedPostgres({ dataDir })).rejects.toThrow(`in use by another process's PostgreSQL`);
    expect(await query(owner.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await kill(owner.child);
    await untilGone(owner.pid);
  });

  it("is not held up by a pid file whose number is another process's by now", async () => {
    const file = join(dataDir, "postgres", "cluster", "postmaster.pid");
    const other = spawn("sleep", ["60"]);
    children.push(other);
    await writeFile(file, `${other.pid}\n${join(dataDir, "postgres", "cluster")}\n`);
    const postgres = await startEmbeddedPostgres({ dataDir });
    expect(await query(postgres.url, "SELECT 1 AS one")).toEqual([{ one: 1 }]);
    await postgres.stop();
    expect(other.exitCode).toBeNull();
  });

  it("refuses a port that is taken", async () => {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    await expect(startEmbeddedPostgres({ dataDir, port })).rejects.toThrow(`port ${port} of 127.0.0.1 is taken`);
    server.close();
  });

  it("says what PostgreSQL complained of when it does not start", async () => {
    const starting = startEmbeddedPostgres({ dataDir, settings: { shared_buffers: "nonsense" } });
    await expect(starting).rejects.toThrow(/invalid value for parameter "shared_buffers"/);
  });
});
