import { describe, expect, it } from "vitest";
import { leaveRoom } from "../../../../src/rooms/join/leave-room.ts";
import { fetchMissingState } from "../../../../src/rooms/resync/resync-fetch-state.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep } from "../../../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../../../src/rooms/resync/resync-repair-events.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { joinedRooms } from "../../../../src/storage/memberships.ts";
import { countPartialEvents, partialEventIds, partialRoom } from "../../../../src/storage/partial-state.ts";
import { currentStreamPosition, unPartialStatedEvents, unPartialStatedRooms } from "../../../../src/storage/streams.ts";
import type { RoomId } from "../../../../src/matrix/identifiers.ts";
import {
  AT_PARTIAL_ROOM,
  AT_ROOM,
  AT_STREAM,
  holdAtRequest,
  holdAtStatement,
  holdStream,
  untilWaiting,
} from "../../../support/hold-point.ts";
import {
  completeResync,
  enterRoom,
  expectWhole,
  join,
  otherProcess,
  ourUser,
  resyncUpTo,
  stepAfter,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;

async function streamOf(roomId: RoomId): Promise<{ rooms: number; events: readonly string[] }> {
  const range = { from: 0n, to: await currentStreamPosition(pool) };
  const rooms = await unPartialStatedRooms(pool, range);
  const events = await unPartialStatedEvents(pool, range);
  const ofRoom = await Promise.all(events.map(({ eventId }) => loadEvent(pool, eventId)));
  return {
    rooms: rooms.filter((row) => row.roomId === roomId).length,
    events: ofRoom.filter((event) => event?.roomId === roomId).map((event) => event?.eventId ?? ""),
  };
}

async function untilLeft(roomId: RoomId): Promise<void> {
  await resident.waitForEvent((event) => event.roomId === roomId && event.pdu.content["membership"] === "leave");
}

describe("two workers at one room", () => {
  it("repair each event once", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    await resident.sendMessage(room, resident.founder, "partial");
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "repair");

    const lock = await holdStream(database);
    const first = repairEvents(sidecar.ctx, target, eventIds);
    await untilWaiting(database, AT_STREAM);
    const second = repairEvents(otherProcess(sidecar.ctx), target, eventIds);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await first).toMatchObject({ kind: "repaired", count: eventIds.length });
    expect(await second).toMatchObject({ kind: "repaired", count: 0 });
    await completeResync(scene, entered);
    const { events } = await streamOf(roomId);
    expect(new Set(events).size).toBe(events.length);
    expect(events).toEqual(expect.arrayContaining([...eventIds]));
  });

  it("declare it whole once", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");

    const lock = await holdStream(database);
    const first = finishResync(sidecar.ctx, target);
    await untilWaiting(database, AT_STREAM);
    const second = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await first).toMatchObject({ kind: "completed" });
    expect(await second).toEqual({ kind: "superseded" });
    // As the second would be told, or the first, had it been killed before it could report.
    expect(await stepAfter(scene, target)).toBe("completed");
    expect((await streamOf(roomId)).rooms).toBe(1);
    await expectWhole(scene, entered);
  });

  it("fetch one state from two servers at once, and lose nothing of it", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "fetch");
    const [eventId] = eventIds;
    const asked = { ...target, eventId: eventId ?? "$none", server: resident.serverName };
    const other = otherProcess(sidecar.ctx);
    const sides = [sidecar.ctx, other].map((ctx) => ({ ctx, held: holdAtRequest(ctx.federation, "state") }));
    const fetching = sides.map(({ ctx, held }) => fetchMissingState({ ...ctx, federation: held.federation }, asked));
    await Promise.all(sides.map(({ held }) => held.reached));
    for (const { held } of sides) held.release();

    for (const fetched of fetching) expect(await fetched).toEqual({ kind: "complete" });
    expect(await stepAfter(scene, target)).toBe("repair");
    await completeResync(scene, entered);
    expect((await streamOf(roomId)).rooms).toBe(1);
  });
});

describe("repairs of one transaction", () => {
  it("go in the order in which they are given, whatever order the events are stored in", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    for (let number = 1; number < 25; number += 1) {
      await resident.sendMessage(room, resident.founder, `message ${number}`);
    }
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "repair");
    expect(eventIds).toHaveLength(25);
    for (const id of eventIds.toReversed()) {
      await pool.query("UPDATE events SET soft_failed = soft_failed WHERE event_id = $1", [id]);
    }

    const repaired = await repairEvents(sidecar.ctx, target, eventIds);

    expect(repaired).toMatchObject({ kind: "repaired", count: 25 });
    await completeResync(scene, entered);
    expect((await streamOf(roomId)).events).toEqual(eventIds);
  });
});

describe("a leave, as the last event is repaired", () => {
  it("is waited for by the repair, and is repaired after it", async () => {
    const { roomId, target } = await enterRoom(scene);
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "repair");
    const lock = await holdStream(database);
    const leaving = leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilWaiting(database, AT_STREAM);
    const repairing = repairEvents(otherProcess(sidecar.ctx), target, eventIds);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    await leaving;
    await repairing;

    expect(await nextResyncStep(sidecar.ctx, target)).toEqual({ kind: "left" });
    expect(await partialRoom(pool, roomId)).toBeUndefined();
    expect(await countPartialEvents(pool, roomId)).toBe(0);
    await untilLeft(roomId);
  });

  it("waits for the repair, and is full at once", async () => {
    const { roomId, target } = await enterRoom(scene);
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "repair");
    const lock = await holdStream(database);
    const repairing = repairEvents(sidecar.ctx, target, eventIds);
    await untilWaiting(database, AT_STREAM);
    const leaving = leaveRoom(otherProcess(sidecar.ctx), { userId: sidecar.userId, roomId });
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    await leaving;

    expect(await repairing).toMatchObject({ count: 1 });
    expect(await countPartialEvents(pool, roomId)).toBe(0);
    expect(await nextResyncStep(sidecar.ctx, target)).toEqual({ kind: "left" });
    expect(await partialRoom(pool, roomId)).toBeUndefined();
    await untilLeft(roomId);
  });

  it("may come as the room is declared whole: it is left then, and nothing of it stays partial", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const lock = await holdStream(database);
    const leaving = leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilWaiting(database, AT_STREAM);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    await leaving;

    expect(await finishing).toMatchObject({ kind: "completed" });
    await untilLeft(roomId);
    await expectWhole(scene, entered);
    expect(await joinedRooms(pool, sidecar.userId)).not.toContain(roomId);
    expect(await stepAfter(scene, target)).toBe("completed");
  });
});

describe("an older join's resync, as the room is joined again", () => {
  it("repairs nothing more", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "repair");
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);

    const lock = await holdStream(database);
    const joining = join(scene, sidecar.ctx, room);
    await untilWaiting(database, AT_STREAM);
    const repairing = repairEvents(otherProcess(sidecar.ctx), target, eventIds);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    const { eventId } = await joining;

    expect(await repairing).toEqual({ kind: "superseded" });
    expect(await partialEventIds(pool, [eventId])).toEqual(new Set([eventId]));
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("can't declare it whole", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    await resyncUpTo(sidecar.ctx, target, "finish");
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);

    const lock = await holdStream(database);
    const joining = join(scene, sidecar.ctx, room);
    await untilWaiting(database, AT_STREAM);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_PARTIAL_ROOM);
    await lock.release();
    const { eventId } = await joining;

    expect(await finishing).toEqual({ kind: "superseded" });
    expect(await partialRoom(pool, roomId)).toMatchObject({ joinEventId: eventId });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("does not give it up", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);
    // It has seen that nobody is left, and is about to clear up.
    const other = otherProcess(sidecar.ctx);
    const clearing = holdAtStatement(other.database, AT_ROOM);
    const step = nextResyncStep({ ...other, database: clearing.database }, target);
    await clearing.reached;
    const { eventId } = await join(scene, sidecar.ctx, room);
    clearing.release();

    expect(await step).toEqual({ kind: "superseded" });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("goes on with the fetch that it is at, which does the new one no harm", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "fetch");
    const [eventId] = eventIds;
    const other = otherProcess(sidecar.ctx);
    const held = holdAtRequest(other.federation, "stateIds", { after: true });
    const fetching = fetchMissingState(
      { ...other, federation: held.federation },
      { ...target, eventId: eventId ?? "$none", server: resident.serverName },
    );
    await held.reached;
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);
    const again = await join(scene, sidecar.ctx, room);
    held.release();

    expect(await fetching).toEqual({ kind: "complete" });
    expect(await stepAfter(scene, target)).toBe("superseded");
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: again.eventId } });
  });
});

describe("giving a room up", () => {
  it("is told again to whoever was killed before it could report it, though the room was joined in full since", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);
    expect(await stepAfter(scene, target)).toBe("left");
    expect(await stepAfter(scene, target)).toBe("left");
    const full = resident.trouble({ kind: "full-join" });
    expect(await join(scene, sidecar.ctx, room)).toMatchObject({ partial: false });
    full();
    expect(await stepAfter(scene, target)).toBe("left");
  });

  it("is taken back by a second user's join that is stored first", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const bob = ourUser(scene, "bob");
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);
    const other = otherProcess(sidecar.ctx);
    const clearing = holdAtStatement(other.database, AT_ROOM);
    const step = nextResyncStep({ ...other, database: clearing.database }, target);
    await clearing.reached;
    const joined = await join(scene, sidecar.ctx, room, bob);
    clearing.release();

    expect(await step).toEqual({ kind: "superseded" });
    expect(await partialRoom(pool, roomId)).toMatchObject({ joinEventId: joined.eventId });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: joined.eventId } });
    expect(await joinedRooms(pool, bob)).toContain(roomId);
  });

  it("is waited for by a second user's join, which then enters anew", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const carol = ourUser(scene, "carol");
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await untilLeft(roomId);
    const other = otherProcess(sidecar.ctx);
    const clearing = holdAtStatement(other.database, /DELETE FROM resync_control/, { after: true });
    const step = nextResyncStep({ ...other, database: clearing.database }, target);
    await clearing.reached;
    const joining = join(scene, sidecar.ctx, room, carol);
    await untilWaiting(database, /INSERT INTO rooms/);
    clearing.release();
    const joined = await joining;

    expect(await step).toEqual({ kind: "left" });
    expect(await partialRoom(pool, roomId)).toMatchObject({ joinEventId: joined.eventId });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: joined.eventId } });
  });
});
