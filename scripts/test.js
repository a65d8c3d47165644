// Runs vitest and ends with `N passed, N failed, N skipped` alone on the last line; `--long` runs the long ones.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const given = process.argv.slice(2);
// Several filters add up, so a project that was asked for must stand alone.
const asked = given.some((argument) => argument.startsWith("--project"));
const projects = asked ? [] : given.includes("--long") ? ["--project=long*"] : ["--project=!long*"];
const folder = mkdtempSync(join(tmpdir(), "fastjoin-test-"));
const report = join(folder, "report.json");

/** A file that failed before or outside its tests (an import, a hook) counts as one failure. */
function failuresOutsideTests(file) {
  return file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed") ? 1 : 0;
}

function totals() {
  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  const results = testResults.flatMap((file) => file.assertionResults.map(({ status }) => status));
  const failed = results.filter((status) => status === "failed").length;
  return {
    passed: results.filter((status) => status === "passed").length,
    failed: failed + testResults.reduce((sum, file) => sum + failuresOutsideTests(file), 0),
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

let sum = { passed: 0, failed: 1, skipped: 0 };
try {
  sum = totals();
} catch (error) {
  process.stderr.write(`no report of the test run: ${error.message}\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}
// An error outside of every test (an unhandled rejection) shows in the exit code only.
const failed = status !== 0 && sum.failed === 0 ? 1 : sum.failed;
process.stdout.write(`${sum.passed} passed, ${failed} failed, ${sum.skipped} skipped\n`);
process.exitCode = failed > 0 || sum.passed === 0 ? 1 : 0;
