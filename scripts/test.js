// Runs vitest and ends with `N passed, N failed, N skipped` alone on the last line; `--long` runs the long ones.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const given = process.argv.slice(2);
// Several filters add up, so a project that was asked for must stand alone.
const asked = given.some((argument) => argument.startsWith("--project"));
const projects = asked ? [] : given.includes("--long") ? ["--project=long*"] : ["--project=!long*"];
const folder = mkdtempSync(join(tmpdir(), "fastjoin-test-"));
const report = join(folder, "report.json");

/** A file that failed before or outside its tests (an import, a hook) counts as one failure. */
function failedOutsideTests(file) {
  return file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed");
}

/** One line each, for whoever sees the end of a long log alone. */
function failuresOf(file) {
  const name = relative(root, file.name);
  const line = (title, message) => `FAILED ${name}: ${title}: ${String(message).split("\n", 1)[0]}`;
  if (failedOutsideTests(file)) return [line("outside of its tests", file.message)];
  return file.assertionResults
    .filter(({ status }) => status === "failed")
    .map(({ fullName, failureMessages }) => line(fullName, failureMessages[0] ?? "no message"));
}

function outcome() {
  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  const results = testResults.flatMap((file) => file.assertionResults.map(({ status }) => status));
  return {
    passed: results.filter((status) => status === "passed").length,
    failures: testResults.flatMap(failuresOf),
    skipped: results.filter((status) => status !== "passed" && status !== "failed").length,
  };
}

const { status } = spawnSync(
  process.execPath,
  [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    ...projects,
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...given.filter((argument) => argument !== "--long"),
  ],
  { cwd: root, stdio: ["ignore", "inherit", "inherit"] },
);

let passed = 0;
let skipped = 0;
/** @type {string[]} */
let failures = [];
try {
  ({ passed, failures, skipped } = outcome());
} catch (error) {
  failures = [`FAILED no report of the test run: ${error.message}`];
} finally {
  rmSync(folder, { recursive: true, force: true });
}
// An error outside of every test (an unhandled rejection) shows in the exit code only.
if (status !== 0 && failures.length === 0) failures = ["FAILED outside of every test: see above"];
for (const failure of failures) process.stdout.write(`${failure}\n`);
process.stdout.write(`${passed} passed, ${failures.length} failed, ${skipped} skipped\n`);
process.exitCode = failures.length > 0 || passed === 0 ? 1 : 0;
