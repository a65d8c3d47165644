import { describe, expect, it } from "vitest";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { purgeRoomOfUsers } from "../../../src/rooms/join/purge-room.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import type { Front } from "../../resident/front.ts";
import { crossSigningKeyOf, deviceKeysOf } from "../../support/device-keys.ts";
import { openDeviceScene } from "../../support/device-scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const scene = await openDeviceScene();
const { database, resident, sidecar, aUser, enter, uploadKeys, delivered } = scene;
const [first, second, third] = scene.fronts;

const updatesAt = (front: Front, userId: string): readonly JsonObject[] =>
  scene.edusAt(front, "m.device_list_update", userId);

describe("a change of a local user's devices in a partial room", () => {
  it("reaches the known servers at once, and one that was hidden once after the resync", async () => {
    const alice = await aUser();
    const { complete } = await enter(alice, [second.serverName, third.serverName]);

    await uploadKeys(alice);
    await delivered();
    const [update] = updatesAt(first, alice.userId);
    expect(update).toMatchObject({ device_id: alice.deviceId, prev_id: [], keys: deviceKeysOf(alice) });
    expect(updatesAt(second, alice.userId)).toEqual([]);

    await complete();
    await delivered();
    for (const front of resident.fronts) expect(updatesAt(front, alice.userId)).toEqual([update]);
  });

  it("is not told again to a server that has heard of it in another room", async () => {
    const alice = await aUser();
    const hiding = await enter(alice, [second.serverName]);
    await enter(alice);
    await uploadKeys(alice);
    await delivered();
    expect(updatesAt(second, alice.userId)).toHaveLength(1);

    await hiding.complete();
    await delivered();
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
  });

  it("reaches a missed server once, though two rooms of the user are found to have it", async () => {
    const alice = await aUser();
    const [one, two] = [await enter(alice, [second.serverName]), await enter(alice, [second.serverName])];
    await uploadKeys(alice);
    for (const { complete } of [one, two]) await complete();
    await delivered();
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
  });

  it("reaches a missed server that has left the room by then", async () => {
    const alice = await aUser();
    const { room, complete } = await enter(alice, [second.serverName]);
    await uploadKeys(alice);
    await resident.leave(room, second.user);
    await complete();
    await delivered();
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
  });

  it("does not reach a server that had left before the join", async () => {
    const alice = await aUser();
    const room = resident.hostRoom({ members: 290 });
    await resident.leave(room, second.user);
    const { eventId } = await joinRoom(sidecar.ctx, {
      userId: alice.userId,
      roomId: room.roomId,
      via: [resident.serverName],
    });
    await uploadKeys(alice);
    await driveResync(sidecar.ctx, room.roomId, eventId);
    await delivered();
    expect(updatesAt(first, alice.userId)).toHaveLength(1);
    expect(updatesAt(second, alice.userId)).toEqual([]);
  });

  it("of before the join is not told", async () => {
    const alice = await aUser();
    await uploadKeys(alice);
    const { complete } = await enter(alice, [second.serverName]);
    await complete();
    await delivered();
    for (const front of resident.fronts) expect(updatesAt(front, alice.userId)).toEqual([]);
  });

  it("of a second local user is owed from their own join on", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const { room, complete } = await enter(alice, [second.serverName]);
    await uploadKeys(bob, "before");
    await joinRoom(sidecar.ctx, { userId: bob.userId, roomId: room.roomId, via: [resident.serverName] });
    await uploadKeys(bob, "after");
    await leaveRoom(sidecar.ctx, { userId: bob.userId, roomId: room.roomId });
    await uploadKeys(bob, "gone");
    await complete();
    await delivered();
    const told = updatesAt(first, bob.userId);
    expect(told.map((update) => update["keys"])).toEqual([deviceKeysOf(bob, "after")]);
    expect(updatesAt(second, bob.userId).map((update) => update["stream_id"])).toEqual([told[0]?.["stream_id"]]);
  });

  it("refers to the one before it, whoever was told of that", async () => {
    const alice = await aUser();
    const { complete } = await enter(alice, [second.serverName]);
    await uploadKeys(alice, "1");
    await uploadKeys(alice, "2");
    await complete();
    await delivered();
    for (const front of [first, second]) {
      const updates = updatesAt(front, alice.userId);
      expect(updates).toHaveLength(2);
      expect(updates[1]?.["prev_id"]).toEqual([updates[0]?.["stream_id"]]);
    }
  });

  it("is still told to those who are owed it when the last of our users leaves", async () => {
    const alice = await aUser();
    const { room, joinEventId } = await enter(alice, [second.serverName, third.serverName]);
    await uploadKeys(alice);
    await resident.leave(room, second.user);
    await leaveRoom(sidecar.ctx, { userId: alice.userId, roomId: room.roomId });
    expect(await nextResyncStep(sidecar.ctx, { roomId: room.roomId, joinEventId })).toEqual({ kind: "left" });
    await delivered();
    expect(updatesAt(first, alice.userId)).toHaveLength(1);
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
    expect(updatesAt(third, alice.userId)).toEqual([]);
  });

  it("is still told to those who are owed it when an operator purges the room", async () => {
    const alice = await aUser();
    const { room } = await enter(alice, [second.serverName]);
    await uploadKeys(alice);
    await resident.leave(room, second.user);
    await purgeRoomOfUsers(sidecar.ctx, { roomId: room.roomId, by: "operator", why: "" });
    await delivered();
    expect(updatesAt(first, alice.userId)).toHaveLength(1);
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
  });

  it("is still told when the room is joined again before the resync has noticed the leave", async () => {
    const alice = await aUser();
    const { room } = await enter(alice, [second.serverName]);
    await uploadKeys(alice);
    await resident.leave(room, second.user);
    await leaveRoom(sidecar.ctx, { userId: alice.userId, roomId: room.roomId });
    await resident.waitForEvent(
      (event) =>
        event.roomId === room.roomId &&
        event.pdu.content["membership"] === "leave" &&
        event.pdu.sender === alice.userId,
    );
    await joinRoom(sidecar.ctx, { userId: alice.userId, roomId: room.roomId, via: [resident.serverName] });
    expect(await partialRoom(database.pool, room.roomId)).toBeDefined();
    await delivered();
    expect(updatesAt(second, alice.userId)).toHaveLength(1);
  });
});

describe("a change of cross-signing keys in a partial room", () => {
  it("reaches the known servers at once, and a missed one after the resync", async () => {
    const alice = await aUser();
    const { complete } = await enter(alice, [second.serverName]);
    const master = crossSigningKeyOf(alice.userId, "master", "M");
    await alice.ok("POST", "keys/device_signing/upload", { body: { master_key: master } });
    await delivered();
    const told = { user_id: alice.userId, master_key: master };
    expect(scene.edusAt(first, "m.signing_key_update", alice.userId)).toEqual([told]);
    expect(scene.edusAt(second, "m.signing_key_update", alice.userId)).toEqual([]);

    await complete();
    await delivered();
    expect(scene.edusAt(first, "m.signing_key_update", alice.userId)).toEqual([told]);
    expect(scene.edusAt(second, "m.signing_key_update", alice.userId)).toEqual([told]);
  });
});

describe("a device that is logged out in a partial room", () => {
  it("is told as deleted to those who could encrypt to it", async () => {
    const alice = await aUser();
    await uploadKeys(alice);
    const bare = await scene.api.login(alice.userId.slice(1).split(":")[0] ?? "", "BARE");
    await enter(alice);
    await bare.ok("POST", "logout");
    await alice.ok("POST", "logout");
    await delivered();
    const updates = updatesAt(first, alice.userId);
    expect(updates).toHaveLength(1);
    expect(updates[0]).toMatchObject({ device_id: alice.deviceId, deleted: true });
    expect(updates[0]?.["prev_id"]).toHaveLength(1);
  });
});
