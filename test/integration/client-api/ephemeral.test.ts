import { describe, expect, it, onTestFinished } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { endPresence } from "../../../src/rooms/edus/end-presence.ts";
import { startExpiring } from "../../../src/rooms/edus/keep-expiring.ts";
import { expireTyping } from "../../../src/rooms/edus/typing.ts";
import { transaction } from "../../../src/storage/database.ts";
import { purgeRoom } from "../../../src/storage/purge-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";
import { rowsNaming } from "../../support/rows-naming.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);
/** Another process of the same server: it has nothing in common with the first but the database. */
const other = await startLoopbackClientApi(database);

const key = encodeURIComponent;
const at = (roomId: RoomId, rest: string): string => `rooms/${key(roomId)}/${rest}`;
const MINUTE_MS = 60_000;

let users = 0;

async function aUser(): Promise<TestClient> {
  users += 1;
  return await api.register(`user${users}`);
}

interface Pair {
  readonly alice: TestClient;
  readonly bob: TestClient;
  readonly roomId: RoomId;
}

/** Two users in a room. */
async function aPair(): Promise<Pair> {
  const [alice, bob] = [await aUser(), await aUser()];
  const roomId = await alice.createRoom("11", { preset: "public_chat" });
  await bob.ok("POST", `join/${key(roomId)}`);
  return { alice, bob, roomId };
}

async function since(client: TestClient): Promise<string> {
  return (await client.sync()).next_batch;
}

function ephemeralIn(answer: Body, roomId: RoomId, type: string): Body {
  const events: Body[] = answer.rooms?.join?.[roomId]?.ephemeral?.events ?? [];
  return events.find((event) => event.type === type)?.content;
}

async function type(client: TestClient, roomId: RoomId, typing: boolean, timeout?: number): Promise<void> {
  await client.ok("PUT", at(roomId, `typing/${key(client.userId)}`), { body: { typing, timeout } });
}

async function read(client: TestClient, roomId: RoomId, eventId: EventId, body: Body = {}): Promise<void> {
  const { as = "m.read", ...rest } = body;
  await client.ok("POST", at(roomId, `receipt/${as}/${key(eventId)}`), { body: rest });
}

describe("typing", () => {
  it("is shown to the others of the room, from any process, until it ends by itself", async () => {
    const { alice, bob, roomId } = await aPair();
    const bobElsewhere = await other.login(bob.userId.slice(1).split(":")[0] ?? "");
    const expiring = startExpiring(other.ctx);
    onTestFinished(() => expiring.stop());
    const start = await since(bobElsewhere);
    const first = bobElsewhere.sync({ since: start, timeout: "20000" });
    await type(alice, roomId, true, 1_000);
    const begun = await first;
    expect(ephemeralIn(begun, roomId, "m.typing")).toEqual({ user_ids: [alice.userId] });
    const ended = await bob.sync({ since: begun.next_batch, timeout: "20000" });
    expect(ephemeralIn(ended, roomId, "m.typing")).toEqual({ user_ids: [] });
  });

  it("ends though it began while the clock was an hour ahead", async () => {
    const { alice, bob, roomId } = await aPair();
    await type(alice, roomId, true);
    await database.pool.query("UPDATE typing_users SET expires_at = expires_at + interval '1 hour'");
    await expireTyping(other.ctx);
    expect(ephemeralIn(await bob.sync(), roomId, "m.typing")).toEqual({ user_ids: [] });
  });

  it("wakes nobody by going on, and is told in the room's first sync", async () => {
    const { alice, bob, roomId } = await aPair();
    await type(alice, roomId, true);
    const start = await since(bob);
    await type(alice, roomId, true);
    expect((await bob.sync({ since: start })).rooms).toBeUndefined();
    expect(ephemeralIn(await bob.sync(), roomId, "m.typing")).toEqual({ user_ids: [alice.userId] });
    await type(alice, roomId, false);
    expect(ephemeralIn(await bob.sync({ since: start }), roomId, "m.typing")).toEqual({ user_ids: [] });
  });

  it("is for the user's own hand, in a room they are in", async () => {
    const { alice, bob, roomId } = await aPair();
    const stranger = await aUser();
    const body = { typing: true };
    for (const client of [bob, stranger]) {
      expect((await client.call("PUT", at(roomId, `typing/${key(alice.userId)}`), { body })).status).toBe(403);
    }
    const own = at(roomId, `typing/${key(stranger.userId)}`);
    expect((await stranger.call("PUT", own, { body })).status).toBe(403);
    const wrong = await alice.call("PUT", at(roomId, `typing/${key(alice.userId)}`), { body: { typing: "yes" } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(ephemeralIn(await bob.sync(), roomId, "m.typing")).toBeUndefined();
  });
});

describe("receipts", () => {
  it("are shown to the others, one a user and thread, and private ones to their owner alone", async () => {
    const { alice, bob, roomId } = await aPair();
    const [first, second] = [await alice.send(roomId, "first"), await alice.send(roomId, "second")];
    const [ofAlice, ofBob] = [await since(alice), await since(bob)];
    await read(bob, roomId, first);
    await read(bob, roomId, second, { thread_id: "main" });
    await read(bob, roomId, second, { as: "m.read.private" });
    const ts = expect.any(Number);
    const shown = {
      [first]: { "m.read": { [bob.userId]: { ts } } },
      [second]: { "m.read": { [bob.userId]: { ts, thread_id: "main" } } },
    };
    expect(ephemeralIn(await alice.sync({ since: ofAlice }), roomId, "m.receipt")).toEqual(shown);
    const own = { ...shown, [second]: { ...shown[second], "m.read.private": { [bob.userId]: { ts } } } };
    expect(ephemeralIn(await bob.sync({ since: ofBob }), roomId, "m.receipt")).toEqual(own);
    await read(bob, roomId, second);
    const unthreaded = { [second]: { "m.read": { [bob.userId]: { ts } } } };
    expect(ephemeralIn(await alice.sync(), roomId, "m.receipt")).toEqual(unthreaded);
  });

  it("never move back", async () => {
    const { alice, bob, roomId } = await aPair();
    const [first, second] = [await alice.send(roomId, "first"), await alice.send(roomId, "second")];
    await read(bob, roomId, second);
    await read(bob, roomId, first);
    expect(Object.keys(ephemeralIn(await alice.sync(), roomId, "m.receipt"))).toEqual([second]);
  });

  it("of threads are kept for the hundred that were read last", async () => {
    const { bob, roomId } = await aPair();
    await database.pool.query(
      `INSERT INTO receipts (room_id, user_id, receipt_type, thread_id, server_name, event_id, ts, stream_id)
       SELECT $1, $2, 'm.read', '$thread' || n, 'us.example', '$read', 0, -n FROM generate_series(1, 150) AS n`,
      [roomId, bob.userId],
    );
    await read(bob, roomId, "$one-more", { thread_id: "$newest" });
    const { rows } = await database.pool.query("SELECT min(stream_id) AS oldest FROM receipts WHERE room_id = $1", [
      roomId,
    ]);
    expect(rows).toEqual([{ oldest: "-99" }]);
  });

  it("are refused where they make no sense, and to strangers", async () => {
    const { alice, roomId } = await aPair();
    const stranger = await aUser();
    const call = async (client: TestClient, place: string, body: Body): Promise<number> =>
      (await client.call("POST", at(roomId, place), { body })).status;
    expect(await call(alice, "receipt/m.unknown/$event", {})).toBe(400);
    expect(await call(alice, "receipt/m.read/event", {})).toBe(400);
    expect(await call(alice, "receipt/m.read/$event", { thread_id: "" })).toBe(400);
    expect(await call(alice, "receipt/m.fully_read/$event", { thread_id: "main" })).toBe(400);
    expect(await call(stranger, "receipt/m.read/$event", {})).toBe(403);
    expect(await call(stranger, "read_markers", { "m.fully_read": "$event" })).toBe(403);
  });

  it("and the place where a user reads are set by one request", async () => {
    const { alice, bob, roomId } = await aPair();
    const [first, second] = [await alice.send(roomId, "first"), await alice.send(roomId, "second")];
    const start = await since(bob);
    const body = { "m.fully_read": first, "m.read": second };
    await bob.ok("POST", at(roomId, "read_markers"), { body });
    const answer = await bob.sync({ since: start });
    expect(Object.keys(ephemeralIn(answer, roomId, "m.receipt"))).toEqual([second]);
    const place = [{ type: "m.fully_read", content: { event_id: first } }];
    expect(answer.rooms.join[roomId].account_data.events).toEqual(place);
    expect((await bob.sync()).rooms.join[roomId].account_data.events).toEqual(place);
    expect((await alice.sync()).rooms.join[roomId].account_data).toBeUndefined();
  });

  it("and typing are left out where the filter says so", async () => {
    const { alice, bob, roomId } = await aPair();
    await type(alice, roomId, true);
    await read(alice, roomId, await alice.send(roomId, "hello"));
    await bob.ok("POST", at(roomId, "read_markers"), { body: { "m.fully_read": "$event" } });
    const without = { ephemeral: { not_types: ["m.receipt"] }, account_data: { types: [] } };
    const answer = await bob.sync({ filter: JSON.stringify({ room: without }) });
    expect(ephemeralIn(answer, roomId, "m.receipt")).toBeUndefined();
    expect(ephemeralIn(answer, roomId, "m.typing")).toEqual({ user_ids: [alice.userId] });
    expect(answer.rooms.join[roomId].account_data).toBeUndefined();
  });
});

describe("presence", () => {
  async function presenceOf(client: TestClient, viewer = client): Promise<Body> {
    return await viewer.ok("GET", `presence/${key(client.userId)}/status`);
  }

  async function later(ms: number): Promise<void> {
    await endPresence({ ...api.ctx, now: () => Date.now() + ms });
  }

  it("is shown to who shares a room, as their clients come and go", async () => {
    const { alice, bob } = await aPair();
    const start = await since(bob);
    const waiting = bob.sync({ since: start, timeout: "20000" });
    await alice.sync();
    expect((await waiting).presence.events).toMatchObject([
      { type: "m.presence", sender: alice.userId, content: { presence: "online", currently_active: true } },
    ]);
    await later(2 * MINUTE_MS);
    expect(await presenceOf(alice, bob)).toMatchObject({ presence: "offline", currently_active: false });
    await alice.sync();
    expect(await presenceOf(alice, bob)).toMatchObject({ presence: "online" });
  });

  it("is of who does nothing for long that they are away, until they do something", async () => {
    const { alice, roomId } = await aPair();
    await alice.sync({ timeout: "600000" });
    await later(6 * MINUTE_MS);
    expect(await presenceOf(alice)).toMatchObject({ presence: "unavailable", currently_active: false });
    await alice.sync();
    expect(await presenceOf(alice)).toMatchObject({ presence: "unavailable" });
    await alice.send(roomId, "back again");
    expect(await presenceOf(alice)).toMatchObject({ presence: "online", currently_active: true });
  });

  it("ends by itself, also when the clock is set back", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const appear = async (user: TestClient): Promise<Body> =>
      await user.ok("PUT", `presence/${key(user.userId)}/status`, { body: { presence: "online" } });
    const shown = async (user: TestClient): Promise<unknown> => (await presenceOf(user))["presence"];
    let aheadMs = 60 * MINUTE_MS;
    await appear(alice);
    const expiring = startExpiring({ ...other.ctx, now: () => Date.now() + aheadMs });
    onTestFinished(() => expiring.stop());
    await expect.poll(() => shown(alice)).not.toBe("online");
    aheadMs = 6 * MINUTE_MS;
    await appear(bob);
    await expect.poll(() => shown(bob)).not.toBe("online");
  });

  it("is what the client wants it to be", async () => {
    const { alice, bob } = await aPair();
    await alice.sync({ set_presence: "offline" });
    expect(await presenceOf(alice, bob)).toEqual({ presence: "offline" });
    await alice.sync({ set_presence: "unavailable" });
    expect(await presenceOf(alice, bob)).toMatchObject({ presence: "unavailable" });
    const body = { presence: "online", status_msg: "at work" };
    await alice.ok("PUT", `presence/${key(alice.userId)}/status`, { body });
    expect(await presenceOf(alice, bob)).toMatchObject(body);
    expect((await alice.call("GET", "sync", { query: { set_presence: "asleep" } })).status).toBe(400);
  });

  it("is told to both sides when a user enters a room", async () => {
    const { alice, roomId } = await aPair();
    const carol = await aUser();
    await alice.sync();
    const [ofCarol, ofAlice] = [await since(carol), await since(alice)];
    expect((await carol.sync({ since: ofCarol })).presence).toBeUndefined();
    await carol.ok("POST", `join/${key(roomId)}`);
    const sendersIn = (answer: Body): readonly string[] => answer.presence.events.map((one: Body) => one.sender);
    expect(sendersIn(await carol.sync({ since: ofCarol }))).toContain(alice.userId);
    await endPresence(api.ctx);
    expect(sendersIn(await alice.sync({ since: ofAlice }))).toContain(carol.userId);
  });

  it("is nothing of strangers' and is not set for others", async () => {
    const [alice, stranger] = [await aUser(), await aUser()];
    await alice.sync();
    const place = `presence/${key(alice.userId)}/status`;
    expect(await stranger.call("GET", place)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect((await stranger.call("PUT", place, { body: { presence: "offline" } })).status).toBe(403);
    const senders = ((await stranger.sync()).presence?.events ?? []).map((event: Body) => event.sender);
    expect(senders).toEqual([stranger.userId]);
    expect((await stranger.sync({ filter: JSON.stringify({ presence: { types: [] } }) })).presence).toBeUndefined();
  });
});

describe("account data", () => {
  const ofUser = (client: TestClient, name: string): string => `user/${key(client.userId)}/account_data/${name}`;
  const ofRoom = (client: TestClient, roomId: RoomId, name: string): string =>
    `user/${key(client.userId)}/${at(roomId, `account_data/${name}`)}`;

  it("is kept for the user's clients, as a whole and by room", async () => {
    const { alice, bob, roomId } = await aPair();
    const start = await since(alice);
    const waiting = alice.sync({ since: start, timeout: "20000" });
    await alice.ok("PUT", ofUser(alice, "org.example.colors"), { body: { theme: "dark" } });
    const events = [{ type: "org.example.colors", content: { theme: "dark" } }];
    expect((await waiting).account_data.events).toEqual(events);
    await alice.ok("PUT", ofRoom(alice, roomId, "m.tag"), { body: { tags: {} } });
    expect(await alice.ok("GET", ofUser(alice, "org.example.colors"))).toEqual({ theme: "dark" });
    expect(await alice.ok("GET", ofRoom(alice, roomId, "m.tag"))).toEqual({ tags: {} });
    const anew = await alice.sync();
    expect(anew.account_data.events).toEqual(events);
    expect(anew.rooms.join[roomId].account_data.events).toEqual([{ type: "m.tag", content: { tags: {} } }]);
    expect((await bob.sync()).account_data).toBeUndefined();
  });

  it("is nobody else's, has a size, and leaves some types to their endpoints", async () => {
    const { alice, bob } = await aPair();
    expect((await bob.call("GET", ofUser(alice, "org.example.colors"))).status).toBe(403);
    expect((await bob.call("PUT", ofUser(alice, "org.example.colors"), { body: {} })).status).toBe(403);
    expect(await alice.call("GET", ofUser(alice, "org.example.none"))).toMatchObject({
      status: 404,
      body: { errcode: "M_NOT_FOUND" },
    });
    const reserved = await alice.call("PUT", ofUser(alice, "m.fully_read"), { body: {} });
    expect(reserved).toMatchObject({ status: 405, body: { errcode: "M_BAD_JSON" } });
    const large = await alice.call("PUT", ofUser(alice, "org.example.large"), { body: { x: "x".repeat(70_000) } });
    expect(large).toMatchObject({ status: 413, body: { errcode: "M_TOO_LARGE" } });
  });
});

describe("purgeRoom", () => {
  it("takes away who typed, what was read and what was kept", async () => {
    const { alice, roomId } = await aPair();
    await type(alice, roomId, true);
    await alice.ok("POST", at(roomId, "read_markers"), { body: { "m.fully_read": "$event", "m.read": "$event" } });
    const naming = await rowsNaming(database, roomId);
    expect(naming).toMatchObject({ typing_users: 1, typing_rooms: 1, receipts: 1, account_data: 1 });
    await transaction(database, (tx) => purgeRoom(tx, roomId));
    expect(await rowsNaming(database, roomId)).toEqual({});
  });
});
