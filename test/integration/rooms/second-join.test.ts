import { describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { joinedRooms } from "../../../src/storage/memberships.ts";
import { partialRoom, partialRoomServers } from "../../../src/storage/partial-state.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Trouble } from "../../resident/trouble.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene({ fronts: 2 });
const { ctx } = sidecar;
const other = resident.fronts[1]?.serverName ?? "";
const TOPIC = stateKeyOf("m.room.topic", "");

let rooms = 0;
async function enter() {
  rooms += 1;
  const room = resident.hostRoom({ members: 20, label: `room ${rooms}` });
  const request = { userId: sidecar.userId, roomId: room.roomId, via: [resident.serverName] };
  const { eventId: joinEventId } = await joinRoom(ctx, request);
  return { room, joinEventId, rows: await rowsOf(room) };
}

/** All that a second join must leave alone. */
async function rowsOf({ roomId }: HostedRoom) {
  return {
    room: await partialRoom(database.pool, roomId),
    servers: await partialRoomServers(database.pool, roomId),
    resyncs: sidecar.wanted.filter((one) => one.roomId === roomId),
  };
}

async function joinSecond(room: HostedRoom, via = other): Promise<UserId> {
  rooms += 1;
  const userId: UserId = `@second${rooms}:${sidecar.serverName}`;
  const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via: [via] });
  expect(joined.partial).toBe(true);
  return userId;
}

const second = resident.fronts[1];
const lies: readonly (readonly [string, (room: HostedRoom) => Trouble])[] = [
  ["names fewer servers", () => ({ kind: "lie", lie: "hide-server", server: resident.serverName })],
  [
    "names servers that we had not heard of",
    () => ({ kind: "lie", lie: "answer", changes: { servers_in_room: [other, "new.example"] } }),
  ],
  [
    "lacks a piece of state",
    () => ({ kind: "lie", lie: "replace-state", type: "m.room.topic", stateKey: "", eventId: null }),
  ],
  ["holds an older piece of state", (room) => olderTopic(room)],
  ["leaves no members out", () => ({ kind: "full-join" })],
];

/** The first topic of the room, where it has had more than one. */
function olderTopic(room: HostedRoom): Trouble {
  const older = [...room.events.values()].find(({ event }) => event.pdu.type === "m.room.topic");
  if (older === undefined) throw new Error("the room has no topic");
  const { eventId } = older.event;
  expect(resident.fullState(room).get(TOPIC)).not.toBe(eventId);
  return { kind: "lie", lie: "replace-state", type: "m.room.topic", stateKey: "", eventId };
}

describe.each([
  ["that we know", false],
  ["that we have missed", true],
])("a second join that builds on events %s", (_what, gap) => {
  it.each(lies)("does no harm where its answer %s", async (_how, lie) => {
    const { room, joinEventId, rows } = await enter();
    if (gap) await resident.sendMessage(room, resident.founder, "missed", { push: false });
    const topic = (await sidecar.currentState(room.roomId)).get(TOPIC);
    const end = resident.trouble({ ...lie(room), at: "send_join" }, second);
    const userId = await joinSecond(room);
    end();
    expect(await rowsOf(room)).toEqual(rows);
    expect((await sidecar.currentState(room.roomId)).get(TOPIC)).toBe(topic);
    expect(await joinedRooms(database.pool, userId)).toContain(room.roomId);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("learns of the state that it has missed", async () => {
    const { room, joinEventId, rows } = await enter();
    const push = { push: !gap };
    const { eventId } = await resident.sendState(room, { type: "m.room.topic", content: { topic: "newer" } }, push);
    await joinSecond(room);
    expect(await rowsOf(room)).toEqual(rows);
    expect((await sidecar.currentState(room.roomId)).get(TOPIC)).toBe(eventId);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("a second join", () => {
  it("of two users at once leaves one resync, and both are in", async () => {
    const { room, joinEventId, rows } = await enter();
    const both = await Promise.all([joinSecond(room), joinSecond(room, resident.serverName)]);
    expect(await rowsOf(room)).toEqual(rows);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    for (const userId of both) expect(resident.membership(room, userId)).toBe("join");
  });

  it("is refused by a server whose room has another create event, and the next is asked", async () => {
    const { room, rows } = await enter();
    const end = resident.trouble({ kind: "lie", lie: "other-create", where: "state", at: "send_join" }, second);
    const userId: UserId = `@wary:${sidecar.serverName}`;
    await joinRoom(ctx, { userId, roomId: room.roomId, via: [other, resident.serverName] });
    end();
    expect(await rowsOf(room)).toEqual(rows);
  });

  it("by a user who is in the room already asks nobody", async () => {
    const { room, joinEventId } = await enter();
    const before = resident.front.requests.length;
    const again = { userId: sidecar.userId, roomId: room.roomId, via: [resident.serverName] };
    expect(await joinRoom(ctx, again)).toMatchObject({ eventId: joinEventId, partial: true });
    const asked = resident.front.requests.slice(before).map((one) => one.endpoint);
    expect(asked).not.toContain("make_join");
  });
});
