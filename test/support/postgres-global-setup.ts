import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { startEmbeddedPostgres } from "../../src/main/embedded/postgres.ts";
import { migrate } from "../../src/storage/migrations.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** A URL with the database that tests clone; nothing may connect to that one. */
    readonly postgresTemplateUrl: string;
  }
}

interface Server {
  readonly templateUrl: string;
  stop(): Promise<void>;
}

// Each vitest project loads this file anew; they share one server.
const shared = globalThis as { fastjoinTestServer?: { users: number; readonly server: Promise<Server> } };

async function startServer(): Promise<Server> {
  const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
  const postgres = await startEmbeddedPostgres({
    dataDir,
    database: "template_fastjoin",
    // What is lost in a crash of the machine is only a test run.
    settings: { fsync: "off", synchronous_commit: "off", full_page_writes: "off", max_connections: "300" },
  });
  const stop = async () => {
    await postgres.stop();
    await rm(dataDir, { recursive: true, force: true });
  };
  try {
    await migrate(postgres.url);
    await untilUnused(postgres.url);
  } catch (error) {
    await stop();
    throw error;
  }
  return { templateUrl: postgres.url, stop };
}

/** A database that someone is connected to can't be cloned, and a closed connection ends a moment later. */
async function untilUnused(templateUrl: string): Promise<void> {
  const url = new URL(templateUrl);
  const name = url.pathname.slice(1);
  url.pathname = "/postgres";
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  try {
    for (;;) {
      const used = await client.query("SELECT 1 FROM pg_stat_activity WHERE datname = $1", [name]);
      if (used.rowCount === 0) return;
    }
  } finally {
    await client.end();
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const current = (shared.fastjoinTestServer ??= { users: 0, server: startServer() });
  current.users += 1;
  const { templateUrl } = await current.server;
  project.provide("postgresTemplateUrl", templateUrl);
  return async () => {
    current.users -= 1;
    if (current.users > 0) return;
    delete shared.fastjoinTestServer;
    await (await current.server).stop();
  };
}
