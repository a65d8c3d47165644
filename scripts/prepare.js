// Run by `npm ci`: generates the Prisma client, builds, and bundles the workflows. Needs no network.
import { execFileSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const require = createRequire(import.meta.url);

function run(packageName, program, args, env = {}) {
  const folder = dirname(require.resolve(`${packageName}/package.json`));
  const { bin } = require(`${packageName}/package.json`);
  execFileSync(process.execPath, [join(folder, typeof bin === "string" ? bin : bin[program]), ...args], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, ...env },
    encoding: "utf8",
  });
}

function step(name, work) {
  const began = performance.now();
  return Promise.resolve()
    .then(work)
    .then(
      () => process.stdout.write(`prepare: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)\n`),
      (error) => {
        process.stderr.write(`prepare: ${name} failed: ${error.message}\n${error.stdout ?? ""}`);
        process.exit(1);
      },
    );
}

const built = join(root, "build", "workflow-bundle.js");
if (!existsSync(join(root, "node_modules", "typescript", "package.json"))) {
  // `npm ci --omit=dev` beside a build that is already there, as in the Dockerfile.
  if (!existsSync(built)) {
    process.stderr.write(
      "prepare: TypeScript is not installed and there is no build; run `npm ci` with dev dependencies\n",
    );
    process.exit(1);
  }
  process.exit(0);
}

await step("Prisma client", () =>
  run("prisma", "prisma", ["generate"], {
    // The client needs no engine; naming any executable keeps Prisma from downloading one.
    PRISMA_SCHEMA_ENGINE_BINARY: process.env.PRISMA_SCHEMA_ENGINE_BINARY ?? process.execPath,
    CHECKPOINT_DISABLE: "1",
    PRISMA_HIDE_UPDATE_MESSAGE: "1",
  }),
);
await step("TypeScript", () => {
  rmSync(join(root, "build"), { recursive: true, force: true });
  run("typescript", "tsc", ["-p", "tsconfig.build.json"]);
});
await step("workflow bundle", async () => {
  const { bundleWorkflowCode } = await import("@temporalio/worker");
  const silent = { trace() {}, debug() {}, info() {}, warn() {}, error: console.error, log() {} };
  const { code } = await bundleWorkflowCode({
    workflowsPath: join(root, "build", "workflows", "index.js"),
    logger: silent,
  });
  writeFileSync(built, code);
});
