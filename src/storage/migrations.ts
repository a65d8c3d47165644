import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import pg from "pg";

type MigrationFault = "changed" | "unknown" | "unfinished" | "failed";

/** The database does not fit the migrations of this version; nothing of it was changed. */
class MigrationError extends Error {
  override readonly name = "MigrationError";
  readonly code: MigrationFault;
  /** The migration's name. */
  readonly migration: string;

  constructor(code: MigrationFault, migration: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.migration = migration;
  }
}

interface Migration {
  readonly name: string;
  readonly sql: string;
  readonly checksum: string;
}

interface AppliedMigration {
  readonly name: string;
  readonly checksum: string;
  readonly finished: boolean;
}

// The key that Prisma's own migrate takes: the two never run at once.
const ADVISORY_LOCK = 72_707_369;

// As Prisma creates it.
const MIGRATIONS_TABLE = `CREATE TABLE IF NOT EXISTS _prisma_migrations (
  id VARCHAR(36) PRIMARY KEY NOT NULL,
  checksum VARCHAR(64) NOT NULL,
  finished_at TIMESTAMPTZ,
  migration_name VARCHAR(255) NOT NULL,
  logs TEXT,
  rolled_back_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ NOT NULL DEFAULT now(),
  applied_steps_count INTEGER NOT NULL DEFAULT 0
)`;

/** prisma/migrations of this package, whether we run from the sources or from the build. */
function migrationsDirectory(): string {
  for (let directory = import.meta.dirname; ; directory = dirname(directory)) {
    const candidate = join(directory, "prisma", "migrations");
    if (existsSync(candidate)) return candidate;
    if (dirname(directory) === directory) throw new Error("the directory prisma/migrations was not found");
  }
}

async function readMigrations(directory: string): Promise<readonly Migration[]> {
  const entries = await readdir(directory, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  return Promise.all(
    names.toSorted().map(async (name) => {
      const sql = await readFile(join(directory, name, "migration.sql"), "utf8");
      return { name, sql, checksum: createHash("sha256").update(sql).digest("hex") };
    }),
  );
}

/**
 * Brings the database up to this version, each migration in a transaction of its own. Any number of processes may do
 * so at once: one works, the others wait for it. Keeps the table of Prisma's own migrate, so that either can go on
 * where the other has stopped.
 *
 * @returns the names of the migrations that were applied now
 * @throws MigrationError
 */
export async function migrate(url: string, options: { readonly directory?: string } = {}): Promise<readonly string[]> {
  const migrations = await readMigrations(options.directory ?? migrationsDirectory());
  const client = new pg.Client({ connectionString: url, application_name: "fastjoin migrate" });
  await client.connect();
  try {
    // Held until the connection ends.
    await client.query("SELECT pg_advisory_lock($1)", [ADVISORY_LOCK]);
    await client.query(MIGRATIONS_TABLE);
    const pending = pendingMigrations(migrations, await loadApplied(client));
    for (const migration of pending) await apply(client, migration);
    return pending.map((migration) => migration.name);
  } finally {
    await client.end();
  }
}

async function loadApplied(client: pg.Client): Promise<readonly AppliedMigration[]> {
  const result = await client.query<AppliedMigration>(
    `SELECT migration_name AS name, checksum, finished_at IS NOT NULL AS finished
     FROM _prisma_migrations WHERE rolled_back_at IS NULL ORDER BY started_at, migration_name`,
  );
  return result.rows;
}

function pendingMigrations(
  migrations: readonly Migration[],
  applied: readonly AppliedMigration[],
): readonly Migration[] {
  const byName = new Map(migrations.map((migration) => [migration.name, migration]));
  for (const { name, checksum, finished } of applied) {
    const known = byName.get(name);
    if (!known) {
      throw new MigrationError(
        "unknown",
        name,
        `the database has the migration ${name}, which this version does not know: a newer version has been here`,
      );
    }
    if (!finished) {
      throw new MigrationError("unfinished", name, `the migration ${name} was begun and has not ended: see its logs`);
    }
    if (known.checksum !== checksum) {
      throw new MigrationError(
        "changed",
        name,
        `the migration ${name} was applied with other contents (${checksum}) than it has now (${known.checksum})`,
      );
    }
  }
  const done = new Set(applied.map((migration) => migration.name));
  return migrations.filter((migration) => !done.has(migration.name));
}

async function apply(client: pg.Client, migration: Migration): Promise<void> {
  try {
    await client.query("BEGIN");
    await client.query(migration.sql);
    await client.query(
      `INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, started_at, applied_steps_count)
       VALUES ($1, $2, $3, clock_timestamp(), now(), 1)`,
      [randomUUID(), migration.checksum, migration.name],
    );
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    const reason = error instanceof Error ? error.message : String(error);
    throw new MigrationError("failed", migration.name, `the migration ${migration.name} failed: ${reason}`, {
      cause: error,
    });
  }
}
