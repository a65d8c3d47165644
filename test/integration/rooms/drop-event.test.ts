import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stateGetByKey, stateKeyOf, stateSize } from "../../../src/matrix/state.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { dropEvent } from "../../../src/rooms/resync/drop-event.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../../src/rooms/resync/resync-repair-events.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { joinedRooms } from "../../../src/storage/memberships.ts";
import { markPartial, partialEventIds } from "../../../src/storage/partial-state.ts";
import { resyncDrops } from "../../../src/storage/resync-drops.ts";
import { resyncEventChanges } from "../../../src/storage/resync-event-changes.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { loadState } from "../../../src/storage/state-snapshots.ts";
import type { Sent } from "../../resident/resident.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { repairAllBut, withASecondJoin, withHalfAGap, type LackingRoom } from "../../support/lacking-scene.ts";
import { completeResync, enterRoom, join, ourUser, resyncUpTo } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";
import { anEvent, storeInTimeline } from "../../support/stored-room.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { ctx } = sidecar;
const { pool } = database;
const TOPIC = stateKeyOf("m.room.topic", "");

async function drop({ roomId, lacking }: LackingRoom, eventId = lacking): Promise<void> {
  await dropEvent(ctx, { roomId, eventId, by: "root", why: "its server is gone" });
}

async function sendAfter({ room }: LackingRoom, text: string): Promise<Sent> {
  return await resident.sendMessage(room, resident.founder, text);
}

async function isPartial(eventId: EventId): Promise<boolean> {
  return (await partialEventIds(pool, [eventId])).has(eventId);
}

describe("an event that lacks a state which nobody gives", () => {
  it("holds up neither our join nor what stands beside it", async () => {
    const lacking = await withHalfAGap(scene);
    const tip = { prevEvents: [lacking.target.joinEventId] };
    const beside = await resident.sendMessage(lacking.room, resident.founder, "beside", tip);
    await repairAllBut(scene, lacking);
    expect(await isPartial(lacking.target.joinEventId)).toBe(false);
    expect(await isPartial(beside.eventId)).toBe(false);
    expect(await isPartial(lacking.lacking)).toBe(true);
    expect(await nextResyncStep(ctx, lacking.target)).toMatchObject({ eventIds: [lacking.lost], ofJoin: [] });
  });
});

describe("more events that each lack a state than are looked at together", () => {
  const COUNT = 120;

  it("hold up none that lacks none, and keep no state from being asked for", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const lost = Array.from({ length: COUNT }, (_, number): EventId => `$lost${number}`);
    for (const id of lost) {
      const lacking = anEvent(roomId, `$behind ${id.slice(1)}`, { prev_events: [id] });
      await storeInTimeline(database, lacking);
      await markPartial(pool, roomId, lacking.eventId);
    }
    const { eventId: last } = await resident.sendMessage(room, resident.founder, "behind all of them");
    const { ofJoin } = await resyncUpTo(ctx, target, "fetch");
    for (const eventId of ofJoin) await fetchMissingState(ctx, { ...target, eventId, server: resident.serverName });
    for (const eventId of [target.joinEventId, last]) {
      expect(await nextResyncStep(ctx, target)).toMatchObject({ kind: "repair", eventIds: [eventId] });
      await repairEvents(ctx, target, [eventId]);
    }
    const asked = new Set<EventId>();
    for (let steps = 0; steps < 40 && asked.size < COUNT; steps += 1) {
      const step = await nextResyncStep(ctx, target);
      for (const id of step.kind === "fetch" ? step.eventIds : []) asked.add(id);
    }
    expect(asked).toEqual(new Set(lost));
  });
});

describe("dropEvent", () => {
  it("rejects the event by the operator's word, and says so", async () => {
    const lacking = await withHalfAGap(scene);
    await repairAllBut(scene, lacking);
    await drop(lacking);
    expect(await driveResync(ctx, lacking.roomId, lacking.target.joinEventId)).toBe("completed");

    const reason = "nobody could give the state before it, and it was dropped by root: its server is gone";
    expect((await loadEvent(pool, lacking.lacking))?.rejection).toBe(`operator.dropped: ${reason}`);
    const changes = await resyncEventChanges(pool, lacking.roomId, { limit: 10 });
    expect(changes).toMatchObject([
      { eventId: lacking.lacking, change: "rejected", rule: "operator.dropped", reason, at: expect.any(Date) as Date },
    ]);
    expect(await resyncDrops(pool, lacking.roomId)).toEqual([]);
  });

  it("lets the event stand by what the repairs of the same transaction have come to", async () => {
    const lacking = await withASecondJoin(scene);
    const { target, topic } = lacking;
    const { ofJoin } = await resyncUpTo(ctx, target, "fetch");
    for (const eventId of ofJoin) await fetchMissingState(ctx, { ...target, eventId, server: resident.serverName });
    await repairEvents(ctx, target, [target.joinEventId]);
    await drop(lacking);

    const repaired = await repairEvents(ctx, target, [topic, lacking.lacking]);

    expect(repaired).toEqual({ kind: "repaired", count: 2, rejectionsChanged: 1 });
    const { stateBefore } = (await loadEvent(pool, lacking.lacking)) ?? { stateBefore: null };
    const state = await loadState(database, stateBefore ?? 0n);
    expect(stateGetByKey(state, TOPIC)).toBe(topic);
    expect(stateSize(state)).toBeGreaterThan(40);
    expect(await driveResync(ctx, lacking.roomId, target.joinEventId)).toBe("completed");
  });

  it("judges what builds on the event by the states after its known prev_events, and goes on from there", async () => {
    const lacking = await withHalfAGap(scene);
    await repairAllBut(scene, lacking);
    const after = await sendAfter(lacking, "after it");
    await drop(lacking);
    expect(await driveResync(ctx, lacking.roomId, lacking.target.joinEventId)).toBe("completed");

    expect(await loadEvent(pool, after.eventId)).toMatchObject({ rejection: null, softFailed: false });
    expect(await forwardExtremities(pool, lacking.roomId)).toEqual([after.eventId]);
    const theirs = new Map(resident.fullState(lacking.room));
    const ours = new Map(await sidecar.currentState(lacking.roomId));
    expect(theirs.get(TOPIC)).toBe(lacking.lost);
    expect(ours.get(TOPIC)).not.toBe(lacking.lost);
    theirs.delete(TOPIC);
    ours.delete(TOPIC);
    expect(ours).toEqual(theirs);
    const later = await sendAfter(lacking, "in the whole room");
    expect(await forwardExtremities(pool, lacking.roomId)).toEqual([later.eventId]);
  });

  it("takes a second join of ours back where none of its prev_events is known, and the user can join again", async () => {
    const lacking = await withASecondJoin(scene);
    const { roomId, target } = lacking;
    const bob = ourUser(scene, "bob");
    await repairAllBut(scene, lacking);
    const after = await sendAfter(lacking, "on it alone");
    expect(await joinedRooms(pool, bob)).toContain(roomId);
    await drop(lacking);
    await resyncUpTo(ctx, target, "finish");
    expect(await joinedRooms(pool, bob)).not.toContain(roomId);
    expect(await driveResync(ctx, roomId, target.joinEventId)).toBe("completed");

    expect(await loadEvent(pool, after.eventId)).toMatchObject({ rejection: null, softFailed: false });
    const { stateBefore } = (await loadEvent(pool, lacking.lacking)) ?? {};
    expect(stateGetByKey(await loadState(database, stateBefore ?? 0n), TOPIC)).toBe(lacking.topic);
    expect(await joinedRooms(pool, sidecar.userId)).toContain(roomId);
    const again = await join(scene, ctx, lacking.room, bob);
    expect(again).toMatchObject({ partial: false });
    await resident.waitForEvent((event) => event.eventId === again.eventId);
    expect(await joinedRooms(pool, bob)).toContain(roomId);
    expect(await sidecar.currentState(roomId)).toEqual(resident.fullState(lacking.room));
  });

  it("drops neither our join, nor what lacks nothing, nor anything before our join's state is known", async () => {
    const lacking = await withHalfAGap(scene);
    const { roomId, target } = lacking;
    const notDroppable = { status: 409, errcode: "FASTJOIN.NOT_DROPPABLE" };
    await expect(drop(lacking, target.joinEventId)).rejects.toMatchObject(notDroppable);
    await expect(drop(lacking)).rejects.toMatchObject(notDroppable);
    await repairAllBut(scene, lacking);
    const after = await sendAfter(lacking, "after it");
    await expect(drop(lacking, after.eventId)).rejects.toMatchObject(notDroppable);
    const notPartial = { status: 409, errcode: "FASTJOIN.NOT_PARTIAL" };
    await expect(drop(lacking, target.joinEventId)).rejects.toMatchObject(notDroppable);
    await expect(drop(lacking, "$nowhere")).rejects.toMatchObject(notPartial);
    expect(await resyncDrops(pool, roomId)).toEqual([]);
    lacking.give();
    await completeResync(scene, lacking);
    await expect(drop(lacking)).rejects.toMatchObject(notPartial);
  });

  it("drops no event of another room, nor its join", async () => {
    const elsewhere = await enterRoom(scene);
    const lacking = await withHalfAGap(scene);
    await repairAllBut(scene, lacking);
    const sound = await enterRoom(scene);
    await resyncUpTo(ctx, sound.target, "finish");
    const notPartial = { status: 409, errcode: "FASTJOIN.NOT_PARTIAL" };
    await expect(drop(lacking, elsewhere.target.joinEventId)).rejects.toMatchObject(notPartial);
    await expect(drop({ ...lacking, ...sound }, lacking.lacking)).rejects.toMatchObject(notPartial);
    expect([...(await resyncDrops(pool, lacking.roomId)), ...(await resyncDrops(pool, sound.roomId))]).toEqual([]);
    await completeResync(scene, elsewhere);
  });

  it("changes nothing the second time, and leaves nothing behind in a room that is left before its turn", async () => {
    const lacking = await withHalfAGap(scene);
    const { roomId, target } = lacking;
    await repairAllBut(scene, lacking);
    await drop(lacking);
    await drop(lacking);
    expect(await resyncDrops(pool, roomId)).toHaveLength(1);
    await leaveRoom(ctx, { userId: sidecar.userId, roomId });
    expect(await nextResyncStep(ctx, target)).toEqual({ kind: "left" });
    expect(await resyncDrops(pool, roomId)).toEqual([]);
  });
});
