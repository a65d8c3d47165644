import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Running } from "../../src/main/running-file.ts";
import {
  eventually,
  fastjoin,
  living,
  sidecarSettings,
  spawnFastjoin,
  untilRunning,
  type SidecarProcess,
  type SidecarSettings,
} from "../support/sidecar-process.ts";

const pidsOf = (running: Running): readonly number[] => Object.values(running.processes);

async function ready(running: Running): Promise<number> {
  const answer = await fetch(`${running.clientUrl}/_fastjoin/ready`).catch(() => undefined);
  return answer?.status ?? 0;
}

describe("fastjoin start", () => {
  let settings: SidecarSettings;
  let sidecar: SidecarProcess;
  let running: Running;

  beforeAll(async () => {
    settings = await sidecarSettings();
    sidecar = spawnFastjoin(settings.env, "start");
    running = await untilRunning(settings, sidecar);
  });

  afterAll(async () => {
    sidecar.child.kill("SIGTERM");
    await sidecar.finished;
    await settings.remove();
  });

  it("runs embedded PostgreSQL, embedded Temporal, serve and worker, and is ready", async () => {
    expect(Object.keys(running.processes).toSorted()).toEqual([
      "postgres",
      "serve",
      "supervisor",
      "temporal",
      "worker",
    ]);
    expect(living(pidsOf(running))).toHaveLength(5);
    expect(await ready(running)).toBe(200);
  });

  it("refuses a second start on the same data directory", async () => {
    const { code, stderr } = await fastjoin(settings.env, "start");
    expect(code).toBe(1);
    expect(stderr).toContain(`in use by the sidecar with process id ${running.processes["supervisor"]}`);
  });

  it.each(["worker", "serve", "temporal", "postgres"])("starts a killed %s again", async (part) => {
    const before = running.processes[part] ?? 0;
    process.kill(before, "SIGKILL");
    running = await untilRunning(settings, sidecar, ({ processes }) => (processes[part] ?? before) !== before);
    await eventually(async () => ((await ready(running)) === 200 ? true : undefined), {
      about: () => `not ready again: ${sidecar.output()}`,
    });
    expect(living(pidsOf(running))).toHaveLength(5);
  });

  it("leaves no orphan when it is killed itself, and starts again on what it left", async () => {
    const pids = pidsOf(running);
    sidecar.child.kill("SIGKILL");
    await sidecar.finished;
    await eventually(() => (living(pids).length === 0 ? true : undefined), {
      withinMs: 15_000,
      about: () => `still there: ${living(pids).join(", ")} of ${JSON.stringify(running.processes)}`,
    });
    sidecar = spawnFastjoin(settings.env, "start");
    running = await untilRunning(settings, sidecar);
    expect(await ready(running)).toBe(200);
  });

  it("ends on SIGTERM, with exit code 0 and nothing left behind", async () => {
    const pids = pidsOf(running);
    sidecar.child.kill("SIGTERM");
    expect((await sidecar.finished).code).toBe(0);
    await eventually(() => (living(pids).length === 0 ? true : undefined), { withinMs: 15_000 });
  });
});
