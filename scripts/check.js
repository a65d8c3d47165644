// The static checks, then `npm test`. All static checks run even if one fails, so that one run tells everything.
import { spawnSync } from "node:child_process";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");

function run(title, program, args) {
  process.stdout.write(`\n── ${title}\n`);
  const { status } = spawnSync(process.execPath, [join(root, program), ...args], {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
  });
  return status === 0;
}

const fine = [
  run("format", "node_modules/oxfmt/bin/oxfmt", ["--check"]),
  run("lint", "node_modules/oxlint/bin/oxlint", ["--type-aware"]),
  run("types", "node_modules/typescript/bin/tsc", ["--noEmit", "-p", "tsconfig.json"]),
].every(Boolean);

const tested = run("tests", "scripts/test.js", process.argv.slice(2));
if (!fine) {
  process.stderr.write("static checks failed: see above\n");
}
process.exitCode = fine && tested ? 0 : 1;
