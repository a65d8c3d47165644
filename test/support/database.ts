import { randomBytes } from "node:crypto";
import pg from "pg";
import { afterAll, inject } from "vitest";
import { openDatabase, type Database } from "../../src/storage/database.ts";

export interface ClonedDatabase {
  readonly url: string;
  drop(): Promise<void>;
}

async function onServer(work: (client: pg.Client) => Promise<void>): Promise<void> {
  const url = new URL(inject("postgresTemplateUrl"));
  url.pathname = "/postgres";
  const client = new pg.Client({ connectionString: url.href });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

/** A new database; migrated, unless an empty one is asked for. */
export async function cloneDatabase(options: { readonly empty?: boolean } = {}): Promise<ClonedDatabase> {
  const url = new URL(inject("postgresTemplateUrl"));
  const template = options.empty === true ? "template0" : url.pathname.slice(1);
  const name = `test_${process.pid}_${randomBytes(4).toString("hex")}`;
  url.pathname = `/${name}`;
  await onServer(async (client) => {
    await client.query(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  });
  return {
    url: url.href,
    drop: () =>
      onServer(async (client) => {
        await client.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
      }),
  };
}

/** A migrated database of its own for a test file, opened; closed and dropped after the file's tests. */
export async function openTestDatabase(): Promise<Database> {
  const clone = await cloneDatabase();
  const database = openDatabase(clone.url);
  afterAll(async () => {
    await database.close();
    await clone.drop();
  });
  return database;
}
