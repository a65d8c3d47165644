import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, it } from "vitest";
import { freePort } from "../../src/main/embedded/free-port.ts";
import type { Running } from "../../src/main/running-file.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import type { HttpClient } from "../support/http-client.ts";
import { spawnFastjoin, untilRunning, type SidecarProcess, type SidecarSettings } from "../support/sidecar-process.ts";
import { addAlice, expectEqualStates, joinVia, settingsBeside, untilComplete } from "../support/sidecar-scene.ts";

const PARTS = ["worker", "serve", "temporal", "postgres"] as const;

/** Milliseconds after the join: in the middle of the fetch. */
const MOMENTS = [1_500] as const;

let resident: Resident;
let settings: SidecarSettings;
let sidecar: SidecarProcess;
let running: Running;
let alice: HttpClient;

beforeAll(async () => {
  resident = await startResident();
  resident.trouble({ kind: "slow", bytesPerSecond: 250_000, at: "state" });
  settings = await settingsBeside(resident, { FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await freePort()}` });
  sidecar = spawnFastjoin(settings.env, "start");
  running = await untilRunning(settings, sidecar, ({ clientUrl }) => clientUrl !== undefined);
  alice = await addAlice(settings, running.clientUrl ?? "");
}, 180_000);
afterAll(async () => {
  sidecar.child.kill("SIGTERM");
  await sidecar.finished;
  await settings.remove();
  await resident.close();
});

describe("a resync ends with the resident's state", () => {
  for (const part of PARTS) {
    for (const moment of MOMENTS) {
      it(`when ${part} is killed ${moment} ms after the join`, async () => {
        const room = resident.hostRoom({ members: 1000, servers: 20, label: `${part} ${moment}` });
        await joinVia(alice, room, resident);
        await delay(moment);
        const before = running.processes[part] ?? 0;
        process.kill(before, "SIGKILL");
        running = await untilRunning(settings, sidecar, ({ processes }) => (processes[part] ?? before) !== before);
        await untilComplete(settings, room, sidecar);
        expectEqualStates(await alice.fullState(room.roomId), resident.fullState(room));
      });
    }
  }
});
