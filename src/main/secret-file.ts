import { randomBytes } from "node:crypto";
import { link, mkdir, open, readFile, rm } from "node:fs/promises";
import { dirname } from "node:path";

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

async function writeNew(path: string, text: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  const file = await open(draft, "wx", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  try {
    // Unlike a rename, a link never replaces what another process wrote a moment ago.
    await link(draft, path);
  } catch (error) {
    if (!hasCode(error, "EEXIST")) {
      throw error;
    }
  } finally {
    await rm(draft, { force: true });
  }
}

/** The text of a file, or undefined where there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) {
      return undefined;
    }
    throw error;
  }
}

/**
 * The text of a file that only its owner may read; made if it is not there yet. It appears whole or not at all, and
 * processes that start at once all get the same text.
 */
export async function readOrCreateSecretFile(path: string, make: () => string | Promise<string>): Promise<string> {
  const there = await readIfThere(path);
  if (there !== undefined) {
    return there;
  }
  await writeNew(path, await make());
  return readFile(path, "utf8");
}
