import { describe, expect, it } from "vitest";
import type { EventId } from "../../../../src/matrix/identifiers.ts";
import { repairAll } from "../../../../src/rooms/resync/repair-all.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { repairEvents } from "../../../../src/rooms/resync/resync-repair-events.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { transaction } from "../../../../src/storage/database.ts";
import { PartialRoomGone } from "../../../../src/storage/errors.ts";
import { deletePartialRoom, markPartial, partialEventIds, partialRoom } from "../../../../src/storage/partial-state.ts";
import { AT_ROOM, AT_STREAM, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import {
  completeResync,
  enterRoom,
  expectWhole,
  otherProcess,
  resyncUpTo,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";
import { anEvent, storeInTimeline } from "../../../support/stored-room.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { ctx } = sidecar;

async function isPartial(eventId: EventId): Promise<boolean> {
  return (await partialEventIds(database.pool, [eventId])).has(eventId);
}

/** A room whose events are all repaired but which is not declared whole yet. */
async function repairedRoom(): Promise<EnteredRoom> {
  const entered = await enterRoom(scene);
  await resyncUpTo(ctx, entered.target, "finish");
  return entered;
}

describe("finishResync, while an event arrives", () => {
  it("waits for an event that is being stored on partial state, and leaves the room partial for it", async () => {
    const entered = await enterRoom(scene);
    const { target, room } = entered;
    const { eventIds } = await resyncUpTo(ctx, target, "repair");

    // The event is stored but for its position in the stream; the repair of the last partial event comes after it.
    const lock = await holdStream(database);
    const sent = resident.sendMessage(room, resident.founder, "in between");
    await untilWaiting(database, AT_STREAM);
    const repairing = repairEvents(otherProcess(ctx), target, eventIds);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    const { eventId } = await sent;
    expect(await repairing).toMatchObject({ kind: "repaired", count: 1 });
    expect(await isPartial(eventId)).toBe(true);
    expect(await finishResync(ctx, target)).toEqual({ kind: "more" });
    await completeResync(scene, entered);
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, softFailed: false });
  });

  it("is waited for by the event, which then has its full state at once", async () => {
    const entered = await repairedRoom();
    const { target, room, roomId } = entered;

    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(ctx), target);
    await untilWaiting(database, AT_STREAM);
    const sent = resident.sendMessage(room, resident.founder, "a moment late");
    await untilWaiting(database, AT_ROOM);
    expect(await partialRoom(database.pool, roomId)).toBeDefined();
    await lock.release();

    expect(await finishing).toMatchObject({ kind: "completed" });
    const { eventId } = await sent;
    expect(await isPartial(eventId)).toBe(false);
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
    await expectWhole(scene, entered);
  });
});

describe("repairAll, while events arrive", () => {
  it("repairs what has come since the events were listed too, so that nothing is left for another step", async () => {
    const entered = await enterRoom(scene);
    const { target, room } = entered;
    const { eventIds } = await resyncUpTo(ctx, target, "repair");
    const { eventId } = await resident.sendMessage(room, resident.founder, "after the list was made");
    expect(await isPartial(eventId)).toBe(true);

    expect(await repairAll(ctx, target, eventIds)).toMatchObject({ kind: "repaired", count: eventIds.length + 1 });
    expect(await isPartial(eventId)).toBe(false);
    expect(await finishResync(ctx, target)).toMatchObject({ kind: "completed" });
    await expectWhole(scene, entered);
  });
});

describe("the foreign key, should an event be marked partial past the room's lock", () => {
  it("keeps the room partial when the event comes first", async () => {
    const { roomId } = await enterRoom(scene);
    await storeInTimeline(database, anEvent(roomId, `$first-${roomId}`));
    let clearing: Promise<unknown> | undefined;
    await transaction(database, async (tx) => {
      await markPartial(tx, roomId, `$first-${roomId}`);
      clearing = transaction(database, async (other) => deletePartialRoom(other, roomId)).catch(
        (error: unknown) => error,
      );
      await untilWaiting(database, /DELETE FROM partial_state_rooms /);
    });
    expect(await clearing).toMatchObject({ name: "StorageConflict", code: "foreign-key" });
  });

  it("tells the event when the room is cleared first", async () => {
    const { target, roomId } = await enterRoom(scene);
    await resyncUpTo(sidecar.ctx, target, "finish");
    await storeInTimeline(database, anEvent(roomId, `$second-${roomId}`));
    let marking: Promise<unknown> | undefined;
    await transaction(database, async (tx) => {
      await deletePartialRoom(tx, roomId);
      marking = markPartial(database.pool, roomId, `$second-${roomId}`).catch((error: unknown) => error);
      await untilWaiting(database, /INSERT INTO partial_state_events/);
    });
    expect(await marking).toBeInstanceOf(PartialRoomGone);
  });
});
