import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, describe, expect, it } from "vitest";
import { migrate } from "../../../src/storage/migrations.ts";
import { cloneDatabase } from "../../support/database.ts";

const scratch = await mkdtemp(join(tmpdir(), "fastjoin-migrations-"));
afterAll(() => rm(scratch, { recursive: true, force: true }));

let folders = 0;

/** A folder of migrations, one file each. */
async function folderOf(migrations: Readonly<Record<string, string>>): Promise<string> {
  folders += 1;
  const folder = join(scratch, String(folders));
  for (const [name, sql] of Object.entries(migrations)) {
    await mkdir(join(folder, name), { recursive: true });
    await writeFile(join(folder, name, "migration.sql"), sql);
  }
  return folder;
}

async function onEmptyDatabase(work: (url: string) => Promise<void>): Promise<void> {
  const clone = await cloneDatabase({ empty: true });
  try {
    await work(clone.url);
  } finally {
    await clone.drop();
  }
}

async function rowsOf(url: string, sql: string): Promise<readonly Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows;
  } finally {
    await client.end();
  }
}

const ONE = { "1_first": "CREATE TABLE one (id integer); INSERT INTO one VALUES (1);" };
const TWO = { ...ONE, "2_second": "CREATE TABLE two (id integer);" };

describe("migrate", () => {
  it("applies what is missing, in order, and once", async () => {
    await onEmptyDatabase(async (url) => {
      expect(await migrate(url, { directory: await folderOf(ONE) })).toEqual(["1_first"]);
      const directory = await folderOf(TWO);
      expect(await migrate(url, { directory })).toEqual(["2_second"]);
      expect(await migrate(url, { directory })).toEqual([]);
      expect(await rowsOf(url, "SELECT id FROM one")).toEqual([{ id: 1 }]);
    });
  });

  it("keeps Prisma's table as Prisma does", async () => {
    await onEmptyDatabase(async (url) => {
      await migrate(url, { directory: await folderOf({ "1_only": "SELECT 1;" }) });
      const rows = await rowsOf(url, "SELECT * FROM _prisma_migrations");
      expect(rows).toEqual([
        {
          id: expect.stringMatching(/^[0-9a-f-]{36}$/),
          // sha256sum of the file
          checksum: "17db4fd369edb9244b9f91d9aeed145c3d04ad8ba6e95d06247f07a63527d11a",
          finished_at: expect.any(Date),
          migration_name: "1_only",
          logs: null,
          rolled_back_at: null,
          started_at: expect.any(Date),
          applied_steps_count: 1,
        },
      ]);
    });
  });

  it("lets processes that start at once share the work", async () => {
    await onEmptyDatabase(async (url) => {
      const applied = await Promise.all([1, 2, 3, 4].map(() => migrate(url)));
      const all = applied.flat();
      expect(all.length).toBeGreaterThan(0);
      expect(new Set(all).size).toBe(all.length);
      expect(await rowsOf(url, "SELECT position FROM stream_position")).toEqual([{ position: "0" }]);
    });
  });

  it("refuses a database whose migration was another one", async () => {
    await onEmptyDatabase(async (url) => {
      const directory = await folderOf(ONE);
      await migrate(url, { directory });
      const changed = await folderOf({ "1_first": `${ONE["1_first"]} -- changed` });
      await expect(migrate(url, { directory: changed })).rejects.toMatchObject({
        name: "MigrationError",
        code: "changed",
        migration: "1_first",
      });
    });
  });

  it("refuses a database that a newer version has been at", async () => {
    await onEmptyDatabase(async (url) => {
      await migrate(url, { directory: await folderOf(TWO) });
      const older = migrate(url, { directory: await folderOf(ONE) });
      await expect(older).rejects.toMatchObject({ code: "unknown", migration: "2_second" });
    });
  });

  it("refuses a database that Prisma has left half-way", async () => {
    await onEmptyDatabase(async (url) => {
      const directory = await folderOf(TWO);
      await migrate(url, { directory });
      await rowsOf(url, "UPDATE _prisma_migrations SET finished_at = NULL WHERE migration_name = '2_second'");
      await expect(migrate(url, { directory })).rejects.toMatchObject({ code: "unfinished", migration: "2_second" });
    });
  });

  it("leaves nothing of a migration that fails, and applies it when it is mended", async () => {
    await onEmptyDatabase(async (url) => {
      const broken = await folderOf({ ...ONE, "2_second": "CREATE TABLE two (id integer); SELECT 1 / 0;" });
      await expect(migrate(url, { directory: broken })).rejects.toMatchObject({
        code: "failed",
        migration: "2_second",
      });
      expect(await rowsOf(url, "SELECT to_regclass('two') AS two, to_regclass('one') IS NOT NULL AS one")).toEqual([
        { two: null, one: true },
      ]);
      expect(await migrate(url, { directory: await folderOf(TWO) })).toEqual(["2_second"]);
    });
  });

  it("finds the migrations of the package by itself", async () => {
    await onEmptyDatabase(async (url) => {
      const applied = await migrate(url);
      expect(applied[0]).toBe("20261122000000_initial");
      const copy = join(scratch, "copy");
      await cp("prisma/migrations", copy, { recursive: true });
      expect(await migrate(url, { directory: copy })).toEqual([]);
    });
  });
});
