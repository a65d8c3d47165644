import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

/** For spawn and chown. */
export interface SystemUser {
  readonly uid: number;
  readonly gid: number;
}

const NAME = "postgres";

async function idsOf(name: string): Promise<SystemUser | undefined> {
  try {
    const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])]);
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  } catch {
    return undefined; // `id` knows no such user
  }
}

/**
 * PostgreSQL refuses to run as root: there it runs as the system user `postgres`, who is made if need be. Undefined
 * for anyone else, who runs it as themselves.
 */
export async function postgresUser(): Promise<SystemUser | undefined> {
  if (process.getuid?.() !== 0) return undefined;
  const known = await idsOf(NAME);
  if (known) return known;
  try {
    await run("groupadd", ["--force", "--system", NAME]);
    await run("useradd", ["--system", "--no-create-home", "--shell", "/bin/false", "--gid", NAME, NAME]);
  } catch (error) {
    throw new Error(`PostgreSQL does not run as root, and the system user ${NAME} could not be made`, { cause: error });
  }
  const made = await idsOf(NAME);
  if (!made) throw new Error(`the system user ${NAME} was made but can't be found`);
  return made;
}
