import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A disk in memory. */
export interface SmallDisk {
  readonly path: string;
  /** Unmounts it, also while files of it are open. */
  close(): Promise<void>;
}

/**
 * Mounts the disk and stays until its input ends, which it does however the process at the other end dies: a mount
 * outlives its maker otherwise.
 */
const KEEPER = `
mount -t tmpfs -o "size=$2m" tmpfs "$1" || { rmdir "$1"; exit 1; }
echo mounted
cat >/dev/null
umount -l "$1" && rmdir "$1"
`;

/** @throws Error if no disk may be mounted here */
export async function mountSmallDisk(mebibytes: number): Promise<SmallDisk> {
  const path = await mkdtemp(join(tmpdir(), "fastjoin-test-"));
  const keeper = spawn("sh", ["-c", KEEPER, "sh", path, String(mebibytes)], {
    stdio: ["pipe", "pipe", "ignore"],
    detached: true,
  });
  const ended = once(keeper, "exit");
  const mounted = await Promise.race([once(keeper.stdout, "data").then(() => true), ended.then(() => false)]);
  if (!mounted) throw new Error("no disk may be mounted here");
  return {
    path,
    close: async () => {
      keeper.stdin.end();
      await ended;
      await rm(path, { recursive: true, force: true });
    },
  };
}

/** A disk that is small and full can only be had where one may be mounted. */
export async function mayMountDisks(): Promise<boolean> {
  try {
    const disk = await mountSmallDisk(1);
    await disk.close();
    return true;
  } catch {
    return false;
  }
}
