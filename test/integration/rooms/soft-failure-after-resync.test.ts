import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { recomputeRoom } from "../../../src/rooms/events/recompute-room.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { markPartial } from "../../../src/storage/partial-state.ts";
import { beginReplay, replayArrivals } from "../../../src/rooms/resync/replay-arrivals.ts";
import { resyncEventChanges } from "../../../src/storage/resync-event-changes.ts";
import { forwardExtremities, loadRoom } from "../../../src/storage/rooms.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();

const LEAVER: UserId = "@leaver:server-001.rooms.test";
const STAYER: UserId = "@stayer:server-002.rooms.test";

let members = 200;
let room: HostedRoom;
let joinEventId: EventId;

beforeEach(async () => {
  members += 1;
  room = resident.hostRoom({ members });
  for (const user of [LEAVER, STAYER]) await resident.join(room, user, { push: false });
  const { userId } = sidecar;
  joinEventId = (await joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] })).eventId;
});

async function isSoftFailed(eventId: EventId): Promise<boolean | undefined> {
  return (await loadEvent(database.pool, eventId))?.softFailed;
}

async function extremities(): Promise<readonly EventId[]> {
  return (await forwardExtremities(database.pool, room.roomId)).toSorted();
}

describe("a resync's end", () => {
  it("soft-fails what a user sent beside their leave, when the leave had arrived", async () => {
    const leave = await resident.leave(room, LEAVER);
    const late = await resident.sendMessage(room, LEAVER, "I never left", { prevEvents: [joinEventId] });
    expect(await isSoftFailed(late.eventId)).toBe(false);

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await isSoftFailed(late.eventId)).toBe(true);
    expect(await extremities()).toEqual([leave.eventId]);
    const changes = await resyncEventChanges(database.pool, room.roomId, { limit: 10 });
    expect(changes).toMatchObject([{ eventId: late.eventId, change: "soft-failed", rule: "sender.not-joined" }]);
  });

  it("soft-fails nothing for what happened after it had arrived", async () => {
    const early = await resident.sendMessage(room, LEAVER, "bye");
    const beside = await resident.sendMessage(room, LEAVER, "bye beside", { prevEvents: [joinEventId] });
    await resident.leave(room, LEAVER, { prevEvents: [early.eventId, beside.eventId] });

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    for (const { eventId } of [early, beside]) expect(await isSoftFailed(eventId)).toBe(false);
    expect(await resyncEventChanges(database.pool, room.roomId, { limit: 10 })).toEqual([]);
  });

  it("leaves a soft-failed event's place to an accepted one that builds on it", async () => {
    const leave = await resident.leave(room, LEAVER);
    const late = await resident.sendMessage(room, LEAVER, "I never left", { prevEvents: [joinEventId] });
    const merge = await resident.sendMessage(room, STAYER, "both", { prevEvents: [leave.eventId, late.eventId] });
    const branch = await resident.sendMessage(room, STAYER, "by that alone", { prevEvents: [late.eventId] });

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await isSoftFailed(late.eventId)).toBe(true);
    expect(await extremities()).toEqual([merge.eventId, branch.eventId].toSorted());
  });

  it("keeps what a soft-failed state event says out of the room's state", async () => {
    const content = { users: { [resident.founder]: 100, [LEAVER]: 50 } };
    const { eventId: levels } = await resident.sendState(room, { type: "m.room.power_levels", content });
    const leave = await resident.leave(room, LEAVER);
    const topic = await resident.send(
      room,
      { sender: LEAVER, type: "m.room.topic", stateKey: "", content: { topic: "mine" } },
      { prevEvents: [levels] },
    );

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await isSoftFailed(topic.eventId)).toBe(true);
    expect(await extremities()).toEqual([leave.eventId]);
    expect((await sidecar.currentState(room.roomId)).get(stateKeyOf("m.room.topic", ""))).not.toBe(topic.eventId);
  });

  it("holds nothing against an event of ours that was built on all we knew", async () => {
    const leave = await resident.leave(room, LEAVER);
    const late = await resident.sendMessage(room, LEAVER, "I never left", { prevEvents: [joinEventId] });
    const own = await createEvent(sidecar.ctx, {
      roomId: room.roomId,
      sender: sidecar.userId,
      type: "m.room.message",
      content: { body: "hello" },
    });

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await isSoftFailed(late.eventId)).toBe(true);
    expect(await isSoftFailed(own.eventId)).toBe(false);
    expect(leave.eventId).not.toBe(own.eventId);
    expect(await extremities()).toEqual([own.eventId]);
  });
});

describe("replayArrivals", () => {
  it("takes no event for what it was on partial state, which its repair may yet refuse", async () => {
    const source = { database, tx: database.pool, roomId: room.roomId, rules: room.rules };
    await driveResync(sidecar.ctx, room.roomId, joinEventId, ({ kind }) => kind === "finish");
    const replay = await beginReplay(source, joinEventId);
    const { eventId } = await resident.sendMessage(room, STAYER, "meanwhile");
    await markPartial(database.pool, room.roomId, eventId);

    expect(await replayArrivals(source, replay)).toBe(false);

    expect([...replay.extremities.current()]).toEqual([joinEventId]);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    expect(await extremities()).toEqual([eventId]);
  });
});

describe("recomputeRoom", () => {
  it("passes over what was given up with an earlier stay, though it came after the join", async () => {
    const { pool } = database;
    const source = { database, tx: pool, roomId: room.roomId, rules: room.rules };
    const { eventId } = await resident.sendMessage(room, STAYER, "long since");
    await pool.query("UPDATE events SET state_before = NULL, state_after = NULL WHERE event_id = $1", [eventId]);
    const row = await loadRoom(pool, room.roomId);
    if (row === undefined) throw new Error("the room is not stored");

    expect((await recomputeRoom(source, row, joinEventId)).extremities).toEqual([joinEventId]);
  });
});
