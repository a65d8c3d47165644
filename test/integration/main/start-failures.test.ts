import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { reservedPort } from "../../support/reserved-port.ts";
import {
  eventually,
  fastjoin,
  sidecarSettings,
  spawnFastjoin,
  type SidecarSettings,
} from "../../support/sidecar-process.ts";

const ENTRY = fileURLToPath(new URL("../../../src/main/fastjoin.ts", import.meta.url));

describe("a start that fails", () => {
  let settings: SidecarSettings;
  let file: string;
  let deadDatabase: string;

  beforeAll(async () => {
    settings = await sidecarSettings();
    file = join(settings.dataDir, "a-file");
    await writeFile(file, "no certificate");
    deadDatabase = `postgresql://me:hunter2@127.0.0.1:${await reservedPort()}/fastjoin`;
  });
  afterAll(() => settings.remove());

  const run = (env: Readonly<Record<string, string>>, ...args: readonly string[]) =>
    fastjoin({ ...settings.env, ...env }, ...args);

  it.each(["serve", "worker"])("ends %s with exit code 78 where a setting is missing", async (half) => {
    const { code, stderr, stdout } = await run({}, half);
    expect(stderr).toContain("DATABASE_URL is not set");
    expect(stdout).not.toContain("took too long");
    expect(code).toBe(78);
  });

  it.each(["serve", "worker"])("names the variable of a database that does not answer %s", async (half) => {
    const { code, stderr, stdout } = await run({ DATABASE_URL: deadDatabase }, half);
    expect(stderr).toMatch(/DATABASE_URL \(postgresql:\/\/me@127.0.0.1:\d+\/fastjoin\): connect ECONNREFUSED/);
    expect(stderr + stdout).not.toContain("hunter2");
    expect(code).toBe(1);
  });

  const files: readonly (readonly [string, (path: string) => string])[] = [
    ["FASTJOIN_FEDERATION_TLS", (path) => `${path},${path}`],
    ["FASTJOIN_FEDERATION_CA_FILE", (path) => path],
  ];

  it.each(files)("refuses a %s of files that can't be read or used", async (variable, held) => {
    for (const path of ["/nope", file]) {
      const commands = await Promise.all(
        ["config", "start"].map((command) => run({ [variable]: held(path) }, command)),
      );
      for (const { code, stderr } of commands) {
        expect(stderr).toContain(`${variable} holds ${JSON.stringify(held(path))}, which can't be used (`);
        expect(code).toBe(78);
      }
    }
  });

  it("refuses registrations of application services that can't be read or used", async () => {
    for (const command of ["config", "start"]) {
      const unread = await run({ FASTJOIN_APPLICATION_SERVICES: "/nope" }, command);
      expect(unread.stderr).toContain("FASTJOIN_APPLICATION_SERVICES names /nope, which can't be read");
      const unusable = await run({ FASTJOIN_APPLICATION_SERVICES: file }, command);
      expect(unusable.stderr).toContain(`${file}: the file holds "no certificate"; allowed: a YAML mapping`);
      expect([unread.code, unusable.code]).toEqual([78, 78]);
    }
  });

  it("refuses a data directory under a file", async () => {
    const dataDir = join(file, "data");
    for (const command of ["config", "start", "rooms"]) {
      const { code, stderr } = await run({ FASTJOIN_DATA_DIR: dataDir }, command);
      expect(stderr).toContain(`FASTJOIN_DATA_DIR holds ${JSON.stringify(dataDir)}, which can't be used`);
      expect(code).toBe(78);
    }
  });

  it("does not call itself ready when it is stopped before it was", async () => {
    const env = { DATABASE_URL: deadDatabase, TEMPORAL_ADDRESS: "127.0.0.1:1" };
    const { child, output, finished } = spawnFastjoin({ ...settings.env, ...env }, "start");
    await eventually(() => (output().includes("a part could not be started") ? true : undefined), { about: output });
    child.kill("SIGTERM");
    expect((await finished).code).toBe(0);
    expect(output()).not.toContain("is ready");
  });
});

describe("fastjoin tool", () => {
  it("ends quietly when nobody reads its answers any more", async () => {
    const child = spawn(process.execPath, ["--import", "tsx", ENTRY, "tool", "redact"]);
    child.stdout.destroy();
    // It ends before it has read all of this.
    child.stdin.on("error", () => undefined).end("{}\n".repeat(100_000));
    const [said, [code]] = await Promise.all([text(child.stderr), once(child, "exit")]);
    expect(said).toBe("");
    expect(code).toBe(0);
  });
});
