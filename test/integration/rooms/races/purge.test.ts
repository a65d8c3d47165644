import { describe, expect, it } from "vitest";
import type { RoomId } from "../../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { MOST_EVENTS } from "../../../../src/rooms/events/event-portions.ts";
import { purgeRoomOfUsers } from "../../../../src/rooms/join/purge-room.ts";
import { clientEventBatches } from "../../../../src/rooms/read/client-event-batches.ts";
import { receiveTransaction } from "../../../../src/rooms/receive/receive-transaction.ts";
import { receiveWaitingPdus } from "../../../../src/rooms/receive/receive-waiting-pdus.ts";
import { fetchMissingState } from "../../../../src/rooms/resync/resync-fetch-state.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { pduTexts } from "../../../../src/rooms/serve/serve-pdus.ts";
import { joinedRooms } from "../../../../src/storage/memberships.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { loadRoom } from "../../../../src/storage/rooms.ts";
import { countWaitingPdus } from "../../../../src/storage/waiting-pdus.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import {
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

/** Where a purge stands before it takes a room's rows away. */
const AT_PURGE = /FROM rooms WHERE room_id = \$1 FOR UPDATE/;

async function purge(ctx: RoomsContext, roomId: RoomId): ReturnType<typeof purgeRoomOfUsers> {
  return purgeRoomOfUsers(ctx, { roomId, by: "operator", why: "" });
}

/** Nothing of the room can be used any more: neither a state nor anything partial nor anything that waits. */
async function expectGone(roomId: RoomId): Promise<void> {
  expect((await loadRoom(pool, roomId))?.currentSnapshotId ?? null).toBeNull();
  expect(await partialRoom(pool, roomId)).toBeUndefined();
  expect(await countWaitingPdus(pool, roomId)).toBe(0);
  expect(await joinedRooms(pool, sidecar.userId)).not.toContain(roomId);
}

describe("a purge", () => {
  it("takes away what a PDU has stored that came a moment before", async () => {
    const { room, roomId } = await enterRoom(scene);
    const lock = await holdStream(database);
    const sent = resident.sendMessage(room, resident.founder, "a moment before");
    await untilWaiting(database, AT_STREAM);
    const purging = purge(otherProcess(sidecar.ctx), roomId);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    await sent;

    expect(await purging).toMatchObject({ left: [sidecar.userId] });
    await expectGone(roomId);
  });

  it("leaves nothing to a PDU that comes a moment later", async () => {
    const { room, roomId } = await enterRoom(scene);
    const { event } = await resident.sendMessage(room, resident.founder, "a moment later", { push: false });
    // It has found us in the room and is about to be stored.
    const other = otherProcess(sidecar.ctx);
    const storing = holdAtStatement(other.database, AT_ROOM);
    const pdus = [event.pdu as unknown as JsonObject];
    const received = receiveTransaction(
      { ...other, database: storing.database },
      { origin: resident.serverName, txnId: "late", pdus, edus: [] },
    );
    await storing.reached;
    await purge(sidecar.ctx, roomId);
    storing.release();
    await received;

    await receiveWaitingPdus(sidecar.ctx);
    await expectGone(roomId);
  });

  it("waits for the end of a resync, and ends one that comes second", async () => {
    const first = await enterRoom(scene);
    await resyncUpTo(sidecar.ctx, first.target, "finish");
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), first.target);
    await untilWaiting(database, AT_STREAM);
    const purging = purge(sidecar.ctx, first.roomId);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });
    await purging;
    await expectGone(first.roomId);

    const second = await enterRoom(scene);
    await resyncUpTo(sidecar.ctx, second.target, "finish");
    const other = otherProcess(sidecar.ctx);
    const late = holdAtStatement(other.database, AT_ROOM);
    const superseded = finishResync({ ...other, database: late.database }, second.target);
    await late.reached;
    await purge(sidecar.ctx, second.roomId);
    late.release();
    expect(await superseded).toEqual({ kind: "superseded" });
    await expectGone(second.roomId);
  });

  it("is not undone by a fetch that is under way, and the room can be joined again", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const { eventIds } = await resyncUpTo(sidecar.ctx, target, "fetch");
    const [eventId] = eventIds;
    const other = otherProcess(sidecar.ctx);
    const held = holdAtRequest(other.federation, "state", { after: true });
    const fetching = fetchMissingState(
      { ...other, federation: held.federation },
      { ...target, eventId: eventId ?? "$none", server: resident.serverName },
    );
    await held.reached;
    await purge(sidecar.ctx, roomId);
    await resident.waitForEvent((one) => one.roomId === roomId && one.pdu.content["membership"] === "leave");
    held.release();
    // What it has stored is gone again, and nobody gives it to a server that is not in the room.
    await expect(fetching).rejects.toMatchObject({ kind: "refused", status: 403 });

    expect(await stepAfter(scene, target)).toBe("left");
    await expectGone(roomId);
    const again = await join(scene, sidecar.ctx, room);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: again.eventId } });
  });

  it("makes a user leave too who joins in the middle of it", async () => {
    const { room, roomId } = await enterRoom(scene);
    const bob = ourUser(scene, "bob");
    const other = otherProcess(sidecar.ctx);
    // Alice has left, by a transaction that locks the room's row, and the purge is about to lock it itself.
    const deleting = holdAtStatement(other.database, AT_ROOM, { nth: 2 });
    const purging = purge({ ...other, database: deleting.database }, roomId);
    await deleting.reached;
    await resident.waitForEvent((one) => one.roomId === roomId && one.pdu.content["membership"] === "leave");
    await join(scene, sidecar.ctx, room, bob);
    deleting.release();

    expect((await purging).left).toEqual(expect.arrayContaining([sidecar.userId, bob]));
    await expectGone(roomId);
    expect(await joinedRooms(pool, bob)).not.toContain(roomId);
  });

  it("is waited for by a join that is being stored, which then knows the room anew", async () => {
    const { room, roomId } = await enterRoom(scene);
    const bob = ourUser(scene, "carol");
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const other = otherProcess(sidecar.ctx);
    const deleted = holdAtStatement(other.database, AT_PURGE, { after: true });
    const purging = purge({ ...other, database: deleted.database }, roomId);
    await deleted.reached;
    await resident.waitForEvent((one) => one.roomId === roomId && one.pdu.content["membership"] === "leave");
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room, bob);
    await held.reached;
    held.release();
    await untilWaiting(database, /INSERT INTO rooms/);
    deleted.release();
    await purging;
    const { eventId } = await joining;

    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
    expect(await joinedRooms(pool, bob)).toContain(roomId);
  });
});

describe("a purge, as an answer about the room is made", () => {
  const AT_RULES = /SELECT room_version AS version FROM rooms/;
  const AT_REDACTIONS = /FROM redactions JOIN events/;
  const refused = { status: 404, errcode: "M_NOT_FOUND" };

  it.each([
    ["behind the reading of its events", AT_RULES],
    ["before its redactions are read", AT_REDACTIONS],
  ])("ends a client's answer, %s", async (_when, statement) => {
    const { roomId } = await enterRoom(scene);
    const ids = [...(await sidecar.currentState(roomId)).values()];
    expect(ids.length).toBeLessThan(MOST_EVENTS);
    const { ctx } = sidecar;
    const reading = holdAtStatement(otherProcess(ctx).database, statement);
    const wanted = { roomId, ids, withRoomId: true };
    const batch = clientEventBatches({ ...ctx, database: reading.database }, wanted).next();
    await reading.reached;
    await purge(ctx, roomId);
    reading.release();
    await expect(batch).rejects.toMatchObject(refused);
  });

  it("ends a server's answer before anything goes out that was redacted", async () => {
    const { room, roomId } = await enterRoom(scene);
    const ids = [...(await sidecar.currentState(roomId)).values()];
    const { ctx } = sidecar;
    const reading = holdAtStatement(otherProcess(ctx).database, AT_REDACTIONS);
    const batch = pduTexts({ ...ctx, database: reading.database }, room, ids).next();
    await reading.reached;
    await purge(ctx, roomId);
    reading.release();
    await expect(batch).rejects.toMatchObject(refused);
  });
});
