import { describe, expect, it } from "vitest";
import type { EventId, RoomId, UserId } from "../../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import { joinRoom } from "../../../../src/rooms/join/join-room.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { deviceKeysOf } from "../../../support/device-keys.ts";
import { openDeviceScene } from "../../../support/device-scene.ts";
import { AT_STREAM, holdAtRequest, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import type { TestClient } from "../../../support/loopback-client.ts";
import { otherProcess, resyncUpTo } from "../../../support/race-scene.ts";

const scene = await openDeviceScene();
const { database, resident, sidecar, aUser, enter, uploadKeys, delivered, tell } = scene;
const [first, second] = scene.fronts;

const updatesOf = ({ userId }: TestClient): readonly (readonly JsonObject[])[] =>
  [first, second].map((front) => scene.edusAt(front, "m.device_list_update", userId));

/** A room that is repaired but not declared whole; the second server is not known to be in it. */
async function repaired(client: TestClient): Promise<{ roomId: RoomId; joinEventId: EventId }> {
  const { room, joinEventId } = await enter(client, [second.serverName]);
  const target = { roomId: room.roomId, joinEventId };
  await resyncUpTo(sidecar.ctx, target, "finish");
  return target;
}

describe("a local device that changes while the resync ends", () => {
  it("before the end is told once to each, by the end to those who are found then", async () => {
    const alice = await aUser();
    const target = await repaired(alice);
    const lock = await holdStream(database);
    const uploading = uploadKeys(alice);
    await untilWaiting(database, AT_STREAM, 1);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await uploading;
    expect(await finishing).toMatchObject({ kind: "completed" });
    await delivered();
    expect(updatesOf(alice).map((updates) => updates.length)).toEqual([1, 1]);
  });

  it("after the end is told once to each at once", async () => {
    const alice = await aUser();
    const target = await repaired(alice);
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 1);
    const uploading = uploadKeys(alice);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });
    await uploading;
    await delivered();
    expect(updatesOf(alice).map((updates) => updates.length)).toEqual([1, 1]);
  });
});

describe("a local device that changes while a join is stored", () => {
  it("before the join is nothing to the room's servers", async () => {
    const alice = await aUser();
    const room = resident.hostRoom({ members: 280 });
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const ctx = { ...sidecar.ctx, federation: held.federation };
    const joining = joinRoom(ctx, { userId: alice.userId, roomId: room.roomId, via: [resident.serverName] });
    await held.reached;
    await uploadKeys(alice);
    held.release();
    const { eventId } = await joining;
    const target = { roomId: room.roomId, joinEventId: eventId };
    await resyncUpTo(sidecar.ctx, target, "finish");
    expect(await finishResync(sidecar.ctx, target)).toMatchObject({ kind: "completed" });
    await delivered();
    expect(updatesOf(alice)).toEqual([[], []]);
  });

  it("behind the join is told to the servers that came with it", async () => {
    const alice = await aUser();
    const room = resident.hostRoom({ members: 281 });
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const ctx = { ...sidecar.ctx, federation: held.federation };
    const joining = joinRoom(ctx, { userId: alice.userId, roomId: room.roomId, via: [resident.serverName] });
    await held.reached;
    const lock = await holdStream(database);
    held.release();
    await untilWaiting(database, AT_STREAM, 1);
    const uploading = uploadKeys(alice);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await Promise.all([joining, uploading]);
    await delivered();
    expect(updatesOf(alice).map((updates) => updates.length)).toEqual([1, 1]);
  });
});

describe("an update of a member whom we don't know yet", () => {
  const update = (userId: UserId): JsonObject => ({
    user_id: userId,
    device_id: "NEW",
    stream_id: 3,
    prev_id: [2],
    keys: deviceKeysOf({ userId, deviceId: "NEW" }),
  });

  /** Clients are told of the member's change, which makes them ask for the keys. */
  async function isTold(userId: UserId): Promise<boolean> {
    const { rows } = await database.pool.query(`SELECT 1 FROM device_list_changes WHERE user_id = $1`, [userId]);
    return rows.length === 1;
  }

  async function withMember(userId: UserId): Promise<{ roomId: RoomId; joinEventId: EventId }> {
    const alice = await aUser();
    const { room, joinEventId } = await enter(alice, [], async (hosted) => resident.join(hosted, userId));
    const target = { roomId: room.roomId, joinEventId };
    await resyncUpTo(sidecar.ctx, target, "finish");
    return target;
  }

  it("is replayed where it comes just before the resync ends", async () => {
    const userId: UserId = `@early:${second.serverName}`;
    const target = await withMember(userId);
    const lock = await holdStream(database);
    const telling = tell(second, "m.device_list_update", update(userId));
    await untilWaiting(database, AT_STREAM, 1);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await telling;
    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await isTold(userId)).toBe(true);
  });

  it("is applied where the resync ends while it is taken", async () => {
    const userId: UserId = `@late:${second.serverName}`;
    const target = await withMember(userId);
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 1);
    const telling = tell(second, "m.device_list_update", update(userId));
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });
    await telling;
    expect(await isTold(userId)).toBe(true);
    const { rows } = await database.pool.query(`SELECT 1 FROM pending_device_updates WHERE user_id = $1`, [userId]);
    expect(rows).toEqual([]);
  });
});
