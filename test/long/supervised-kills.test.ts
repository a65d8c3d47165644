import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, it } from "vitest";
import { startResident, type Resident } from "../resident/resident.ts";
import { expectEqualStates, joinVia, untilComplete } from "../support/sidecar-scene.ts";
import { startSidecar, type StartedSidecar } from "../support/started-sidecar.ts";

const PARTS = ["worker", "serve", "temporal", "postgres"] as const;

/** Milliseconds after the join: in the middle of the fetch. */
const MOMENTS = [1_500] as const;

let resident: Resident;
let started: StartedSidecar;

beforeAll(async () => {
  resident = await startResident();
  resident.trouble({ kind: "slow", bytesPerSecond: 250_000, at: "state" });
  started = await startSidecar(resident);
}, 180_000);
afterAll(async () => {
  await started.close();
  await resident.close();
});

describe("a resync ends with the resident's state", () => {
  for (const part of PARTS) {
    for (const moment of MOMENTS) {
      it(`when ${part} is killed ${moment} ms after the join`, async () => {
        const { alice, kill, settings, sidecar } = started;
        const room = resident.hostRoom({ members: 1000, servers: 20, label: `${part} ${moment}` });
        await joinVia(alice, room, resident);
        await delay(moment);
        await kill(part);
        await untilComplete(settings, room, sidecar);
        expectEqualStates(await alice.fullState(room.roomId), resident.fullState(room));
      });
    }
  }
});
