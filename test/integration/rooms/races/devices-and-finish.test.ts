import { describe, expect, it } from "vitest";
import type { UserId } from "../../../../src/matrix/identifiers.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep, type ResyncTarget } from "../../../../src/rooms/resync/resync-next-step.ts";
import { deviceKeysOf } from "../../../support/device-keys.ts";
import { openDeviceScene } from "../../../support/device-scene.ts";
import { AT_STREAM, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import { otherProcess, resyncUpTo } from "../../../support/race-scene.ts";
import type { TestClient } from "../../../support/loopback-client.ts";

const scene = await openDeviceScene();
const { database, sidecar } = scene;
const [, hidden] = scene.fronts;

/** A room to be declared whole, of which one server is not known to be in it. */
async function repairedRoom(client: TestClient): Promise<ResyncTarget> {
  const { room, joinEventId } = await scene.enter(client, [hidden.serverName]);
  const target = { roomId: room.roomId, joinEventId };
  await resyncUpTo(sidecar.ctx, target, "finish");
  return target;
}

/** How often each of the resident's servers has heard of the user's devices. */
function updatesHeard(client: TestClient): readonly number[] {
  return scene.fronts.map((front) => scene.edusAt(front, "m.device_list_update", client.userId).length);
}

describe("a change of a local user's devices, as the room is declared whole", () => {
  it("is told by the end of the resync to whom the change did not know", async () => {
    const alice = await scene.aUser();
    const target = await repairedRoom(alice);
    const lock = await holdStream(database);
    const changing = scene.uploadKeys(alice);
    await untilWaiting(database, AT_STREAM);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await changing;

    expect(await finishing).toMatchObject({ kind: "completed" });
    await scene.delivered();
    expect(updatesHeard(alice)).toEqual([1, 1, 1]);
  });

  it("is told by itself to everyone when it comes second", async () => {
    const alice = await scene.aUser();
    const target = await repairedRoom(alice);
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM);
    const changing = scene.uploadKeys(alice);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await changing;

    expect(await finishing).toMatchObject({ kind: "completed" });
    await scene.delivered();
    expect(updatesHeard(alice)).toEqual([1, 1, 1]);
    expect(await nextResyncStep(sidecar.ctx, target)).toEqual({ kind: "superseded" });
  });
});

describe("news of a remote user's devices, as the room is declared whole", () => {
  for (const first of ["news", "end"] as const) {
    it(`is not lost when the ${first} comes first`, async () => {
      const alice = await scene.aUser();
      const dave: UserId = `@dave-${first}:${hidden.serverName}`;
      // A member whom the join did not tell us of.
      const { room, joinEventId } = await scene.enter(alice, [], (one) => scene.resident.join(one, dave));
      const target = { roomId: room.roomId, joinEventId };
      await resyncUpTo(sidecar.ctx, target, "finish");
      const device = { user_id: dave, device_id: "NEW" };
      const keys = deviceKeysOf({ userId: dave, deviceId: "NEW" });
      scene.resident.world.deviceLists.set(dave, { streamId: 7, devices: { NEW: keys } });
      const tell = async (): Promise<unknown> =>
        scene.tell(hidden, "m.device_list_update", { ...device, stream_id: 7, prev_id: [], keys });
      const finish = async (): Promise<unknown> => finishResync(otherProcess(sidecar.ctx), target);

      const lock = await holdStream(database);
      const sides = first === "news" ? [tell, finish] : [finish, tell];
      const done: Promise<unknown>[] = [];
      for (const side of sides) {
        done.push(side());
        await untilWaiting(database, AT_STREAM, done.length);
      }
      await lock.release();
      await Promise.all(done);

      const told = `SELECT 1 FROM device_list_changes WHERE user_id = $1`;
      expect((await database.pool.query(told, [dave])).rows).toHaveLength(1);
      const kept = `SELECT 1 FROM pending_device_updates WHERE user_id = $1`;
      expect((await database.pool.query(kept, [dave])).rows).toEqual([]);
      expect(await scene.devicesSeen(alice, dave)).toEqual({ NEW: keys });
    });
  }
});
