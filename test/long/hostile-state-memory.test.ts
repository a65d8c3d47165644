import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../../src/main/embedded/free-port.ts";
import type { Running } from "../../src/main/running-file.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { forge, madeUpId, serveForged } from "../resident/forge.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import type { HttpClient } from "../support/http-client.ts";
import { peakMebibytes } from "../support/peak-memory.ts";
import {
  eventually,
  fastjoin,
  spawnBuiltFastjoin,
  untilRunning,
  type SidecarProcess,
  type SidecarSettings,
} from "../support/sidecar-process.ts";
import { addAlice, joinVia, settingsBeside, untilComplete } from "../support/sidecar-scene.ts";

/**
 * Of serve and worker together. An ordinary join and its resync take some 500; what is hostile may add to that, but not
 * by what it sends: a few hundred MiB more, held anywhere, are noticed.
 */
const MOST_MEBIBYTES = 896;

let resident: Resident;
let settings: SidecarSettings;
let sidecar: SidecarProcess;
let running: Running;
let alice: HttpClient;

beforeAll(async () => {
  resident = await startResident();
  settings = await settingsBeside(resident, { FASTJOIN_CLIENT_LISTEN: `127.0.0.1:${await freePort()}` });
  sidecar = spawnBuiltFastjoin(settings.env, "start");
  running = await untilRunning(settings, sidecar, ({ clientUrl }) => clientUrl !== undefined);
  alice = await addAlice(settings, running.clientUrl ?? "");
}, 180_000);
afterEach(() => resident.clearTrouble());
afterAll(async () => {
  sidecar.child.kill("SIGTERM");
  await sidecar.finished;
  await settings.remove();
  await resident.close();
});

/** Since their start, of the very processes that started. */
function expectLittleMemory(): void {
  const { serve = 0, worker = 0 } = running.processes;
  const peaks = { serve: peakMebibytes(serve), worker: peakMebibytes(worker) };
  process.stderr.write(`peak memory: serve ${peaks.serve.toFixed(0)} MiB, worker ${peaks.worker.toFixed(0)} MiB\n`);
  expect(peaks.serve + peaks.worker).toBeLessThan(MOST_MEBIBYTES);
}

let rooms = 0;

function hostRoom(): HostedRoom {
  rooms += 1;
  return resident.hostRoom({ members: 200, servers: 5, label: `hostile memory ${rooms}` });
}

function tellIds(pduIds: readonly string[]): void {
  resident.trouble({ kind: "lie", lie: "answer", changes: { pdu_ids: pduIds, auth_chain_ids: [] }, at: "state_ids" });
}

/** The operator sees the cause. */
async function untilShown(room: HostedRoom, cause: string): Promise<void> {
  await eventually(
    async () => {
      const { stdout } = await fastjoin(settings.env, "show", room.roomId);
      return stdout.includes(cause) ? true : undefined;
    },
    { withinMs: 180_000, about: () => `${cause}: ${sidecar.output().slice(-4000)}` },
  );
}

describe("serve and worker together stay under 896 MiB", () => {
  it("while a state holds 2,000 genuine events of 64 KiB each", async () => {
    const room = hostRoom();
    const ids: EventId[] = [...resident.fullState(room).values()];
    for (let index = 0; index < 2_000; index += 1) {
      const fat = forge(resident, room, {
        sender: resident.founder,
        type: "org.example.fat",
        stateKey: `${index}`,
        content: { body: "x".repeat(64_000) },
        changes: {},
      });
      serveForged(room, fat);
      ids.push(fat.event.eventId);
    }
    for (const id of ids) {
      const text = room.events.get(id)?.text ?? "null";
      resident.trouble({ kind: "lie", lie: "repeat", text, times: 1, list: "state", at: "state" });
    }
    tellIds(ids);
    await joinVia(alice, room, resident);
    await untilComplete(settings, room, sidecar);
    expectLittleMemory();
  });

  it.each([
    [1_000_000, "names more than 400000 events"],
    [399_000, "it did not give"],
  ])("while /state_ids names %d events that nobody has", async (count, cause) => {
    const room = hostRoom();
    tellIds(Array.from({ length: count }, (_none, index) => madeUpId(`${index}`)));
    await joinVia(alice, room, resident);
    await untilShown(room, cause);
    expectLittleMemory();
  });
});
