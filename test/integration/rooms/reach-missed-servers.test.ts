import { describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { misdirectedServers } from "../../../src/storage/misdirected-events.ts";
import { ownEventsSince, wasSentTo } from "../../../src/storage/own-event-destinations.ts";
import type { Front } from "../../resident/front.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { callServer } from "../../resident/outbound.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

// Three servers that listen: the one that we join by, and two that are in the room or not, and told of or not.
const { database, resident, sidecar } = await openScene({ fronts: 3 });
const { ctx, userId } = sidecar;
const [, near, far] = resident.fronts as [Front, Front, Front];
const quiet = { push: false };

let members = 300;

function aRoom(): HostedRoom {
  members += 1;
  return resident.hostRoom({ members: members % 40 });
}

async function enter(room: HostedRoom): Promise<EventId> {
  return (await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] })).eventId;
}

/** The join's list lacks this server. */
async function enterUnaware(room: HostedRoom, hidden: Front): Promise<EventId> {
  const hiding = resident.trouble({ kind: "lie", lie: "hide-server", server: hidden.serverName, at: "send_join" });
  const joinEventId = await enter(room);
  hiding();
  return joinEventId;
}

/** The server's user leaves, and the join's list has it all the same. */
async function enterMisled(room: HostedRoom, gone: Front): Promise<EventId> {
  await resident.leave(room, gone.user, quiet);
  const lying = resident.trouble({ kind: "lie", lie: "show-server", server: gone.serverName, at: "send_join" });
  const joinEventId = await enter(room);
  lying();
  return joinEventId;
}

async function say(room: HostedRoom, body: string, sender: UserId = userId): Promise<EventId> {
  const content = { msgtype: "m.text", body };
  return (await createEvent(ctx, { roomId: room.roomId, sender, type: "m.room.message", content })).eventId;
}

/** Texts of ours that the server was sent, in order. */
function heardBy(front: Front, { roomId }: HostedRoom): string[] {
  return front.transactions.flatMap(({ pdus }) => {
    const ofRoom = (pdus as readonly JsonObject[]).filter((pdu) => pdu["room_id"] === roomId);
    return ofRoom.flatMap((pdu) => (pdu["content"] as { readonly body?: string }).body ?? []);
  });
}

async function expectHeard(front: Front, room: HostedRoom, ...bodies: readonly string[]): Promise<void> {
  await expect.poll(() => heardBy(front, room)).toEqual(bodies);
}

/** The server talks to us again; an attempt that was under way may still fail and be waited after. */
async function expectHeardWhenBack(front: Front, room: HostedRoom, ...bodies: readonly string[]): Promise<void> {
  await front.listen();
  const heard = async (): Promise<readonly string[]> => {
    await ctx.federation.noteServerAlive(front.serverName);
    return heardBy(front, room);
  };
  await expect.poll(heard, { timeout: 20_000, interval: 200 }).toEqual(bodies);
}

async function isBegun(front: Front): Promise<boolean> {
  const { rowCount } = await database.pool.query("SELECT FROM outbox WHERE destination = $1 AND txn_id IS NOT NULL", [
    front.serverName,
  ]);
  return rowCount === 1;
}

async function owedTo(front: Front): Promise<number | null> {
  const { rowCount } = await database.pool.query("SELECT FROM outbox WHERE destination = $1", [front.serverName]);
  return rowCount;
}

async function misdirectedIn({ roomId }: HostedRoom): Promise<readonly unknown[]> {
  const servers = await misdirectedServers(database.pool, roomId, 10);
  return servers.map(({ server, count, eventIds }) => [server, count, eventIds]);
}

const notedOf = async (roomId: RoomId): Promise<number> =>
  (await ownEventsSince(database.pool, roomId, { from: 0n })).length;

async function ask(front: Front, uri: string, content?: JsonObject): Promise<{ status: number; bodies: string[] }> {
  const method = content === undefined ? "GET" : "POST";
  const call = { origin: front.serverName, destination: sidecar.serverName, uri, method, ...(content && { content }) };
  const { status, body } = await callServer(resident.world, call as Parameters<typeof callServer>[1]);
  const { pdus, events = [] } = body as {
    readonly pdus?: readonly JsonObject[];
    readonly events?: readonly JsonObject[];
  };
  return { status, bodies: (pdus ?? events).map((pdu) => (pdu["content"] as { readonly body: string }).body) };
}

describe("reachMissedServers", () => {
  it("sends our latest event to a server that the join's list lacked, which then fetches the others from us", async () => {
    const room = aRoom();
    const joinEventId = await enterUnaware(room, near);
    await say(room, "one");
    const two = await say(room, "two");
    await expectHeard(far, room, "one", "two");
    expect(heardBy(near, room)).toEqual([]);

    await driveResync(ctx, room.roomId, joinEventId);

    await expectHeard(near, room, "two");
    await expectHeard(far, room, "one", "two");
    const backfill = await ask(near, paths.backfill(room.roomId, [two], 2));
    expect(backfill).toEqual({ status: 200, bodies: ["two", "one"] });
    const gap = { earliest_events: [joinEventId], latest_events: [two], limit: 10 };
    expect(await ask(near, paths.getMissingEvents(room.roomId), gap)).toEqual({ status: 200, bodies: ["one"] });
  });

  it("sends it to a server that joined after it", async () => {
    const room = aRoom();
    await resident.leave(room, near.user, quiet);
    const joinEventId = await enter(room);
    await say(room, "before");
    await expectHeard(far, room, "before");
    await resident.join(room, near.user);

    await driveResync(ctx, room.roomId, joinEventId);

    await expectHeard(near, room, "before");
    expect(await misdirectedIn(room)).toEqual([]);
  });

  it("sends it again to a server that was told of it while it lacked what is before it", async () => {
    const room = aRoom();
    await resident.leave(room, near.user, quiet);
    const joinEventId = await enter(room);
    await say(room, "before");
    await resident.join(room, near.user);
    await say(room, "after");
    await expectHeard(near, room, "after");

    await driveResync(ctx, room.roomId, joinEventId);

    await expectHeard(near, room, "after", "after");
    await expectHeard(far, room, "before", "after");
  });

  it("sends nothing to a server that has the latest, nor to one whose list still holds it", async () => {
    const room = aRoom();
    const joinEventId = await enter(room);
    await far.close();
    await say(room, "once");
    await expectHeard(near, room, "once");

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await owedTo(near)).toBe(0);
    expect(await owedTo(far)).toBe(1);
    await expectHeardWhenBack(far, room, "once");
    await expectHeard(near, room, "once");
  });

  it("sends nothing where we have said nothing", async () => {
    const room = aRoom();
    const joinEventId = await enterUnaware(room, near);
    await driveResync(ctx, room.roomId, joinEventId);
    expect(await owedTo(near)).toBe(0);
    expect(await misdirectedIn(room)).toEqual([]);
  });

  it("passes over an event that the full state refuses", async () => {
    const room = aRoom();
    const bob: UserId = `@bob-${members}:${sidecar.serverName}`;
    const joinEventId = await enterUnaware(room, near);
    await joinRoom(ctx, { userId: bob, roomId: room.roomId, via: [resident.serverName] });
    await say(room, "fine");
    const refused = await say(room, "refused", bob);
    await expectHeard(far, room, "fine", "refused");
    // As if the full state had refused it.
    await driveResync(ctx, room.roomId, joinEventId, (step) => step.kind === "finish");
    await database.pool.query("UPDATE events SET rejection = 'no' WHERE event_id = $1", [refused]);
    await driveResync(ctx, room.roomId, joinEventId);

    await expectHeard(near, room, "fine");
  });
});

describe("events that went to servers which were not in the room", () => {
  it("are listed for the operator, each with the server", async () => {
    const room = aRoom();
    const joinEventId = await enterMisled(room, far);
    const ids = [await say(room, "one"), await say(room, "two")];
    await expectHeard(far, room, "one", "two");

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await misdirectedIn(room)).toEqual([[far.serverName, 2, ids]]);
    expect(await notedOf(room.roomId)).toBe(0);
  });

  it("are told apart event by event where a server joins and leaves meanwhile", async () => {
    const room = aRoom();
    const joinEventId = await enterMisled(room, far);
    const before = await say(room, "before it joined");
    await resident.join(room, far.user);
    await say(room, "while it was in");
    await resident.leave(room, far.user);
    const after = await say(room, "after it had left");
    await expectHeard(far, room, "before it joined", "while it was in", "after it had left");

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await misdirectedIn(room)).toEqual([[far.serverName, 2, [before, after]]]);
  });

  it("are all found where they are very many", async () => {
    const room = aRoom();
    const joinEventId = await enterMisled(room, far);
    for (let count = 0; count < 45; count += 1) await say(room, `message ${count}`);
    await expect.poll(() => owedTo(far)).toBe(0);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await misdirectedIn(room)).toMatchObject([[far.serverName, 45, expect.any(Array)]]);
  });

  it("are not sent any more where the server has been away since", async () => {
    const room = aRoom();
    await far.close();
    const joinEventId = await enterMisled(room, far);
    await say(room, "begun");
    await expectHeard(near, room, "begun");
    await expect.poll(() => isBegun(far)).toBe(true);
    await say(room, "not begun");
    await expectHeard(near, room, "begun", "not begun");

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await misdirectedIn(room)).toMatchObject([[far.serverName, 1, [expect.any(String)]]]);
    await expectHeardWhenBack(far, room, "begun");
  });

  it("stay served to the servers that have them", async () => {
    const room = aRoom();
    const joinEventId = await enterMisled(room, far);
    const eventId = await say(room, "one");
    expect(await wasSentTo(database.pool, eventId, far.serverName)).toBe(true);
    expect(await wasSentTo(database.pool, eventId, "other.example")).toBe(false);
    await expectHeard(far, room, "one");

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await wasSentTo(database.pool, eventId, far.serverName)).toBe(true);
    expect(await wasSentTo(database.pool, eventId, "other.example")).toBe(false);
  });
});

describe("what is noted of our events", () => {
  it("is noted only while the room is partial", async () => {
    const room = aRoom();
    const joinEventId = await enter(room);
    await say(room, "partial");
    expect(await notedOf(room.roomId)).toBe(1);
    await driveResync(ctx, room.roomId, joinEventId);
    await say(room, "full");
    expect(await notedOf(room.roomId)).toBe(0);
  });

  it("of an earlier stay does not count", async () => {
    const room = aRoom();
    await enterMisled(room, far);
    await say(room, "of the first stay");
    await leaveRoom(ctx, { userId, roomId: room.roomId });
    await resident.waitForEvent(({ roomId, pdu }) => roomId === room.roomId && pdu.content["membership"] === "leave");

    const again = await enter(room);
    await driveResync(ctx, room.roomId, again);

    expect(await misdirectedIn(room)).toEqual([]);
    expect(await notedOf(room.roomId)).toBe(0);
  });
});
