import { describe, expect, it } from "vitest";
import type { EventId, ServerName, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { deviceKeysOf } from "../../support/device-keys.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { TestClient } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene({ fronts: 3 });
const api = await startLoopbackClientApi(database, sidecar.ctx);
const [first, second, third] = resident.fronts;
if (first === undefined || second === undefined || third === undefined) throw new Error("three fronts are needed");

let users = 0;
let members = 300;

async function aUser(): Promise<TestClient> {
  users += 1;
  return await api.register(`user${users}`);
}

/** A partial room: the first front is in the list of servers of the join, those that are hidden are not. */
async function enter(
  client: TestClient,
  hidden: readonly ServerName[] = [],
): Promise<{ room: HostedRoom; joinEventId: EventId }> {
  members += 1;
  const room = resident.hostRoom({ members });
  const lies = hidden.map((server) => resident.trouble({ kind: "lie", lie: "hide-server", server, at: "send_join" }));
  const joined = await joinRoom(sidecar.ctx, {
    userId: client.userId,
    roomId: room.roomId,
    via: [resident.serverName],
  });
  for (const end of lies) end();
  expect(joined.partial).toBe(true);
  return { room, joinEventId: joined.eventId };
}

async function uploadKeys(client: TestClient, mark = "1"): Promise<void> {
  await client.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(client, mark) } });
}

const updatesAt = (server: ServerName, userId: UserId): readonly JsonObject[] =>
  resident.received.edus
    .filter(
      ({ to, type, content }) => to === server && type === "m.device_list_update" && content["user_id"] === userId,
    )
    .map(({ content }) => content);

/** Waits until all that was put on a server's list has come there. */
async function delivered(): Promise<void> {
  await expect
    .poll(
      async () => {
        const left = await database.pool.query(
          `SELECT count(*)::integer AS count FROM outbox_edus WHERE destination = ANY ($1)`,
          [resident.fronts.map((front) => front.serverName)],
        );
        return left.rows[0].count;
      },
      { timeout: 10_000 },
    )
    .toBe(0);
}

describe("a change of a local user's devices in a partial room", () => {
  it("reaches the known servers at once, and one that was hidden once after the resync", async () => {
    const alice = await aUser();
    const { room, joinEventId } = await enter(alice, [second.serverName, third.serverName]);

    await uploadKeys(alice);
    await delivered();
    const [update] = updatesAt(first.serverName, alice.userId);
    expect(update).toMatchObject({ device_id: alice.deviceId, prev_id: [], keys: deviceKeysOf(alice) });
    expect(updatesAt(second.serverName, alice.userId)).toEqual([]);

    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    await delivered();
    for (const front of resident.fronts) expect(updatesAt(front.serverName, alice.userId)).toEqual([update]);
  });

  it("is not told again to a server that has heard of it in another room", async () => {
    const alice = await aUser();
    const hiding = await enter(alice, [second.serverName]);
    await enter(alice);
    await uploadKeys(alice);
    await delivered();
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);

    await driveResync(sidecar.ctx, hiding.room.roomId, hiding.joinEventId);
    await delivered();
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);
  });

  it("reaches a missed server once, though two rooms of the user are found to have it", async () => {
    const alice = await aUser();
    const [one, two] = [await enter(alice, [second.serverName]), await enter(alice, [second.serverName])];
    await uploadKeys(alice);
    for (const { room, joinEventId } of [one, two]) await driveResync(sidecar.ctx, room.roomId, joinEventId);
    await delivered();
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);
  });

  it("reaches a missed server that has left the room by then", async () => {
    const alice = await aUser();
    const { room, joinEventId } = await enter(alice, [second.serverName]);
    await uploadKeys(alice);
    await resident.leave(room, second.user);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    await delivered();
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);
  });

  it("does not reach a server that had left before the join", async () => {
    const alice = await aUser();
    members += 1;
    const room = resident.hostRoom({ members });
    await resident.leave(room, second.user);
    const { eventId } = await joinRoom(sidecar.ctx, {
      userId: alice.userId,
      roomId: room.roomId,
      via: [resident.serverName],
    });
    await uploadKeys(alice);
    await driveResync(sidecar.ctx, room.roomId, eventId);
    await delivered();
    expect(updatesAt(first.serverName, alice.userId)).toHaveLength(1);
    expect(updatesAt(second.serverName, alice.userId)).toEqual([]);
  });

  it("of before the join is not told", async () => {
    const alice = await aUser();
    await uploadKeys(alice);
    const { room, joinEventId } = await enter(alice, [second.serverName]);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    await delivered();
    for (const front of resident.fronts) expect(updatesAt(front.serverName, alice.userId)).toEqual([]);
  });

  it("refers to the one before it, whoever was told of that", async () => {
    const alice = await aUser();
    const { room, joinEventId } = await enter(alice, [second.serverName]);
    await uploadKeys(alice, "1");
    await uploadKeys(alice, "2");
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    await delivered();
    for (const front of [first, second]) {
      const updates = updatesAt(front.serverName, alice.userId);
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
    expect(updatesAt(first.serverName, alice.userId)).toHaveLength(1);
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);
    expect(updatesAt(third.serverName, alice.userId)).toEqual([]);
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
    expect(updatesAt(second.serverName, alice.userId)).toHaveLength(1);
  });
});
