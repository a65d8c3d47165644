// Kills whatever there is at every failpoint, and writes how each kill ended into docs/reliability.md.
import { spawnSync } from "node:child_process";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const { status } = spawnSync(
  process.execPath,
  [join(root, "scripts", "test.js"), "--project=long", "test/long/kill-matrix.test.ts", ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { KILL_MATRIX: "whole", ...process.env, RELIABILITY_TABLE: "write" },
  },
);
process.exitCode = status ?? 1;
