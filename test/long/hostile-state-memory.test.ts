import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { forge, madeUpId, serveForged } from "../resident/forge.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { peakMebibytes } from "../support/peak-memory.ts";
import { eventually, fastjoin } from "../support/sidecar-process.ts";
import { joinVia, untilComplete } from "../support/sidecar-scene.ts";
import { startSidecar, type StartedSidecar } from "../support/started-sidecar.ts";

/**
 * In MiB, of serve and worker together since their start. An ordinary join and its resync take some 410, and what is
 * hostile up to 460 on a busy machine, where garbage is collected late.
 */
const MOST = 512;

let resident: Resident;
let started: StartedSidecar;

beforeAll(async () => {
  resident = await startResident();
  started = await startSidecar(resident, { built: true });
}, 180_000);
afterEach(() => resident.clearTrouble());
afterAll(async () => {
  await started.close();
  await resident.close();
});

/** Since their start, of the very processes that started. */
function expectLittleMemory(): void {
  const { serve = 0, worker = 0 } = started.running().processes;
  const peaks = { serve: peakMebibytes(serve), worker: peakMebibytes(worker) };
  process.stderr.write(`peak memory: serve ${peaks.serve.toFixed(0)} MiB, worker ${peaks.worker.toFixed(0)} MiB\n`);
  expect(peaks.serve + peaks.worker).toBeLessThan(MOST);
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
      const { stdout } = await fastjoin(started.settings.env, "show", room.roomId);
      return stdout.includes(cause) ? true : undefined;
    },
    { withinMs: 180_000, about: () => `${cause}: ${started.sidecar.output().slice(-4000)}` },
  );
}

describe("serve and worker together stay small", () => {
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
    await joinVia(started.alice, room, resident);
    await untilComplete(started.settings, room, started.sidecar);
    expectLittleMemory();
  });

  it.each([
    [1_000_000, "names more than 400000 events"],
    [399_000, "it did not give"],
  ])("while /state_ids names %d events that nobody has", async (count, cause) => {
    const room = hostRoom();
    tellIds(Array.from({ length: count }, (_none, index) => madeUpId(`${index}`)));
    await joinVia(started.alice, room, resident);
    await untilShown(room, cause);
    expectLittleMemory();
  });
});
