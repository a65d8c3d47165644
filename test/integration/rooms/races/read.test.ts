import { describe, expect, it } from "vitest";
import { joinRoom } from "../../../../src/rooms/join/join-room.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { AT_STREAM, holdAtStatement, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import { startLoopbackClientApi } from "../../../support/loopback-client.ts";
import {
  enterRoom,
  expectWhole,
  hostRoom,
  otherProcess,
  resyncUpTo,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const api = await startLoopbackClientApi(database, sidecar.ctx);
const dora = await api.register("dora");

async function repairedRoom(): Promise<EnteredRoom> {
  const room = hostRoom(scene);
  const { roomId } = room;
  const joined = await joinRoom(sidecar.ctx, { userId: dora.userId, roomId, via: [resident.serverName] });
  const target = { roomId, joinEventId: joined.eventId };
  await resyncUpTo(sidecar.ctx, target, "finish");
  return { room, roomId, target };
}

describe("a sync, as a room is declared whole", () => {
  it("does not see the room before that is done, and sees it once then", async () => {
    const entered = await repairedRoom();
    const { roomId, target } = entered;
    const first = await dora.sync();
    const other = otherProcess(sidecar.ctx);
    // All is written but not committed; its position in the stream is taken.
    const end = holdAtStatement(other.database, /INSERT INTO un_partial_stated_room_stream/, { after: true });
    const finishing = finishResync({ ...other, database: end.database }, target);
    await end.reached;
    const during = await dora.sync({ since: first.next_batch, timeout: "0" });
    expect(during.rooms?.join?.[roomId]).toBeUndefined();
    end.release();
    expect(await finishing).toMatchObject({ kind: "completed" });

    const after = await dora.sync({ since: during.next_batch, timeout: "0" });
    expect(after.rooms.join[roomId].state.events).not.toEqual([]);
    const later = await dora.sync({ since: after.next_batch, timeout: "0" });
    expect(later.rooms?.join?.[roomId]).toBeUndefined();
    await expectWhole(scene, entered);
  });

  it("misses nothing that another room is told at the same moment", async () => {
    const whole = await repairedRoom();
    const entered = await enterRoom(scene);
    await joinRoom(sidecar.ctx, { userId: dora.userId, roomId: entered.roomId, via: [resident.serverName] });
    const lazy = JSON.stringify({ room: { state: { lazy_load_members: true } } });
    const first = await dora.sync({ filter: lazy });
    const other = otherProcess(sidecar.ctx);
    const end = holdAtStatement(other.database, /UPDATE stream_position/, { after: true });
    const finishing = finishResync({ ...other, database: end.database }, whole.target);
    await end.reached;
    // Nobody gets a later position before this one can be seen.
    const sending = resident.sendMessage(entered.room, resident.founder, "meanwhile");
    await untilWaiting(database, AT_STREAM);
    const during = await dora.sync({ filter: lazy, since: first.next_batch, timeout: "0" });
    expect(during.next_batch).toBe(first.next_batch);
    end.release();
    await finishing;
    const { eventId } = await sending;

    const after = await dora.sync({ filter: lazy, since: during.next_batch, timeout: "0" });
    expect(after.rooms.join).toHaveProperty([whole.roomId]);
    expect(JSON.stringify(after.rooms.join[entered.roomId])).toContain(eventId);
  });
});

describe("a reader, while writers wait", () => {
  it("is held up by none of them", async () => {
    const entered = await repairedRoom();
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), entered.target);
    await untilWaiting(database, AT_STREAM);
    const path = `rooms/${encodeURIComponent(entered.roomId)}/state/m.room.create/`;
    expect((await dora.call("GET", path)).status).toBe(200);
    expect(await dora.sync({ timeout: "0" })).toHaveProperty("next_batch");
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });
  });
});
