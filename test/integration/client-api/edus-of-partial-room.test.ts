import { describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { endPresence } from "../../../src/rooms/edus/end-presence.ts";
import { receiveEdus } from "../../../src/rooms/edus/receive-edus.ts";
import { expireTyping } from "../../../src/rooms/edus/typing.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { ReceivedEdu } from "../../resident/edus.ts";
import { openClientScene, type EnteredRoom } from "../../support/client-scene.ts";
import { holdAtStatement } from "../../support/hold-point.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const { database, resident, sidecar, aUser, enter, hostRoom, joinVia } = await openClientScene();

const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });
const key = encodeURIComponent;

let ghosts = 0;

/** A user of the resident's server of whom only it can tell whether they are in a room. */
function aGhost(): UserId {
  ghosts += 1;
  return `@ghost${ghosts}:${resident.serverName}`;
}

async function theySend(edus: readonly JsonValue[], pdus: readonly JsonValue[] = []): Promise<Body> {
  const [result] = await resident.sendEdus([sidecar.serverName], edus, { pdus });
  return result;
}

const typing = ({ roomId }: HostedRoom, userId: string, isTyping = true): JsonObject => ({
  edu_type: "m.typing",
  content: { room_id: roomId, user_id: userId, typing: isTyping },
});

const receipt = ({ roomId }: HostedRoom, userId: string, eventId: string, data: JsonObject = {}): JsonObject => ({
  edu_type: "m.receipt",
  content: { [roomId]: { "m.read": { [userId]: { data: { ts: 1_000, ...data }, event_ids: [eventId] } } } },
});

const presence = (userId: string, state: string, more: JsonObject = {}): JsonObject => ({
  edu_type: "m.presence",
  content: { push: [{ user_id: userId, presence: state, last_active_ago: 5_000, ...more }] },
});

interface Watched {
  readonly ephemeral: readonly Body[];
  readonly presence: readonly Body[];
  /** The room's part of the answer. */
  readonly inRoom: Body;
}

/** What the next syncs of a client tell, each from where the last one ended. */
async function watch(client: TestClient, room: HostedRoom): Promise<{ next(): Promise<Watched> }> {
  let { next_batch: since } = await client.sync({ filter: LAZY });
  return {
    async next() {
      const answer = await client.sync({ since, filter: LAZY });
      since = answer.next_batch;
      const inRoom = answer.rooms?.join?.[room.roomId];
      return { ephemeral: inRoom?.ephemeral?.events ?? [], presence: answer.presence?.events ?? [], inRoom };
    },
  };
}

async function typingIn(client: TestClient, room: HostedRoom): Promise<readonly string[]> {
  const events = (await client.sync({ filter: LAZY })).rooms.join[room.roomId].ephemeral?.events ?? [];
  return events.find((event: Body) => event.type === "m.typing")?.content.user_ids ?? [];
}

function edusOf(type: string, room: HostedRoom): readonly ReceivedEdu[] {
  return resident.received.edus.filter(
    (edu) => edu.type === type && (edu.content["room_id"] === room.roomId || edu.content[room.roomId] !== undefined),
  );
}

async function presenceOf(client: TestClient, userId: string): Promise<Body> {
  return client.ok("GET", `presence/${key(userId)}/status`);
}

/** What the resident was told of one of our users. */
function presenceSentOf({ userId }: TestClient): readonly JsonObject[] {
  return resident.received.edus
    .filter(({ type }) => type === "m.presence")
    .flatMap(({ content }) => content["push"] as readonly JsonObject[])
    .filter((entry) => entry["user_id"] === userId);
}

/** Lets the database refuse what is written to a table, the first `times`. */
async function breakTable(table: string, times: number): Promise<() => Promise<void>> {
  const tries = `tries_of_${table}`;
  await database.pool.query(`CREATE SEQUENCE ${tries};
    CREATE FUNCTION refuse_${table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF nextval('${tries}') <= ${times} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '40001'; END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON ${table} FOR EACH ROW EXECUTE FUNCTION refuse_${table}()`);
  return async () => {
    await database.pool.query(`DROP TRIGGER refuse ON ${table}; DROP FUNCTION refuse_${table}; DROP SEQUENCE ${tries}`);
  };
}

describe("m.typing in a partial room", () => {
  it("is taken of a member whose membership we lack, and ends when they cease", async () => {
    const { room, client } = await enter();
    const { next } = await watch(client, room);
    const ghost = aGhost();
    expect(await theySend([typing(room, ghost)])).toMatchObject({ status: 200 });
    expect((await next()).ephemeral).toEqual([{ type: "m.typing", content: { user_ids: [ghost] } }]);
    expect((await next()).inRoom).toBeUndefined();
    await theySend([typing(room, ghost, false)]);
    expect((await next()).ephemeral).toEqual([{ type: "m.typing", content: { user_ids: [] } }]);
  });

  it("wakes a long poll, and so does its end by time", async () => {
    const { room, client } = await enter();
    const { next_batch: since } = await client.sync({ filter: LAZY });
    const first = client.sync({ since, filter: LAZY, timeout: "20000" });
    const ghost = aGhost();
    await theySend([typing(room, ghost)]);
    const { rooms, next_batch: later } = await first;
    expect(rooms.join[room.roomId].ephemeral.events).toEqual([{ type: "m.typing", content: { user_ids: [ghost] } }]);
    const second = client.sync({ since: later, filter: LAZY, timeout: "20000" });
    await expireTyping({ ...sidecar.ctx, now: () => Date.now() + 61_000 });
    const events = (await second).rooms.join[room.roomId].ephemeral.events;
    expect(events).toEqual([{ type: "m.typing", content: { user_ids: [] } }]);
  });

  it("is not believed of another server's user, of one who is known to have left, and of a banned server", async () => {
    const { room, client } = await enter();
    const { user } = resident.front;
    await theySend([typing(room, "@bob:other.example")]);
    expect(await typingIn(client, room)).toEqual([]);
    await theySend([typing(room, user)]);
    expect(await typingIn(client, room)).toEqual([user]);
    await theySend([typing(room, user, false)]);
    await resident.leave(room, user);
    await theySend([typing(room, user)]);
    expect(await typingIn(client, room)).toEqual([]);
    await resident.sendState(room, {
      type: "m.room.server_acl",
      content: { allow: ["*"], deny: [resident.serverName.replace(/:\d+$/, "")] },
    });
    await theySend([typing(room, aGhost())]);
    expect(await typingIn(client, room)).toEqual([]);
  });

  it("is believed no longer of who is no member once the room is whole", async () => {
    const { room, client, complete } = await enter();
    await complete();
    await theySend([typing(room, aGhost()), typing(room, resident.front.user)]);
    expect(await typingIn(client, room)).toEqual([resident.front.user]);
  });

  it("is believed of a member also if the room becomes whole in the middle of it", async () => {
    const { room, client, complete } = await enter();
    const { user } = resident.front;
    const looks = /FROM partial_state_rooms WHERE|FROM current_memberships WHERE room_id = \$1 AND user_id/;
    const held = holdAtStatement(database, looks, { nth: 2 });
    const taking = receiveEdus({ ...sidecar.ctx, database: held.database }, resident.serverName, [typing(room, user)]);
    await held.reached;
    await complete();
    held.release();
    await taking;
    expect(await typingIn(client, room)).toEqual([user]);
  });

  it("keeps a list of no more than 100 users", async () => {
    const { room, client } = await enter();
    const many = Array.from({ length: 120 }, () => aGhost());
    for (let at = 0; at < many.length; at += 60) {
      await theySend(many.slice(at, at + 60).map((one) => typing(room, one)));
    }
    expect(await typingIn(client, room)).toHaveLength(100);
    const first = many[0] ?? "";
    await theySend([typing(room, first, false), typing(room, many.at(-1) ?? "")]);
    const now = await typingIn(client, room);
    expect(now).not.toContain(first);
    expect(now).toContain(many.at(-1));
  });

  it("goes out to the servers that the join named", async () => {
    const { room, client, at } = await enter();
    await client.ok("PUT", at(`typing/${key(client.userId)}`), { body: { typing: true, timeout: 20_000 } });
    await expect.poll(() => edusOf("m.typing", room)).toHaveLength(1);
    await client.ok("PUT", at(`typing/${key(client.userId)}`), { body: { typing: false } });
    await expect.poll(() => edusOf("m.typing", room)).toHaveLength(2);
    expect(edusOf("m.typing", room).map(({ content, origin }) => ({ content, origin }))).toEqual(
      [true, false].map((isTyping) => ({
        origin: sidecar.serverName,
        content: typing(room, client.userId, isTyping)["content"],
      })),
    );
  });

  it("of ours that ends by time is ended for other servers too", async () => {
    const { room, client, at } = await enter();
    await client.ok("PUT", at(`typing/${key(client.userId)}`), { body: { typing: true, timeout: 1_000 } });
    await expect.poll(() => edusOf("m.typing", room)).toHaveLength(1);
    await expireTyping({ ...sidecar.ctx, now: () => Date.now() + 1_100 });
    await expect.poll(() => edusOf("m.typing", room).map(({ content }) => content["typing"])).toEqual([true, false]);
    expect(await typingIn(client, room)).toEqual([]);
  });
});

describe("m.receipt in a partial room", () => {
  it("is taken of a member whose membership we lack, with its thread", async () => {
    const { room, client } = await enter();
    const { eventId } = await resident.sendMessage(room, resident.founder, "read this");
    const { next } = await watch(client, room);
    const [one, two] = [aGhost(), aGhost()];
    await theySend([receipt(room, one, eventId), receipt(room, two, eventId, { thread_id: "main" })]);
    const readers = { [one]: { ts: 1_000 }, [two]: { ts: 1_000, thread_id: "main" } };
    expect((await next()).ephemeral).toEqual([{ type: "m.receipt", content: { [eventId]: { "m.read": readers } } }]);
    expect((await next()).inRoom).toBeUndefined();
    await theySend([receipt(room, one, eventId)]);
    expect((await next()).inRoom).toBeUndefined();
  });

  it("moves forward only, and counts one a user and thread", async () => {
    const { room, client } = await enter();
    const older = await resident.sendMessage(room, resident.founder, "older");
    const newer = await resident.sendMessage(room, resident.founder, "newer");
    const ghost = aGhost();
    await theySend([receipt(room, ghost, newer.eventId), receipt(room, ghost, older.eventId)]);
    const { rooms } = await client.sync({ filter: LAZY });
    const [event] = rooms.join[room.roomId].ephemeral.events;
    expect(event.content).toEqual({ [newer.eventId]: { "m.read": { [ghost]: { ts: 1_000 } } } });
  });

  it("is not believed of another server's user, nor if it is private", async () => {
    const { room, client } = await enter();
    const { next } = await watch(client, room);
    const content = { [room.roomId]: { "m.read.private": { [aGhost()]: { data: { ts: 1 }, event_ids: ["$x"] } } } };
    await theySend([receipt(room, "@bob:other.example", "$x"), { edu_type: "m.receipt", content }]);
    expect((await next()).inRoom).toBeUndefined();
  });

  it("is taken of a thousand unknown users of a server, and of no more", async () => {
    const { room, client } = await enter();
    await database.pool.query(
      `INSERT INTO receipts (room_id, user_id, receipt_type, thread_id, server_name, event_id, ts, stream_id)
       SELECT $1, '@many' || n || ':' || $2, 'm.read', '', $2, '$x', 0, 0 FROM generate_series(1, 1000) AS n`,
      [room.roomId, resident.serverName],
    );
    const { next } = await watch(client, room);
    await theySend([receipt(room, aGhost(), "$y")]);
    expect((await next()).inRoom).toBeUndefined();
  });

  it("goes out to the servers that the join named, unless it is private", async () => {
    const { room, client, at } = await enter();
    const { eventId } = await resident.sendMessage(room, resident.founder, "read this");
    await client.ok("POST", at(`receipt/m.read.private/${key(eventId)}`), { body: {} });
    await client.ok("POST", at(`receipt/m.read/${key(eventId)}`), { body: { thread_id: "main" } });
    await expect.poll(() => edusOf("m.receipt", room)).toHaveLength(1);
    const data = { ts: expect.any(Number), thread_id: "main" };
    expect(edusOf("m.receipt", room)[0]?.content).toEqual({
      [room.roomId]: { "m.read": { [client.userId]: { data, event_ids: [eventId] } } },
    });
  });
});

describe("m.presence of members of a partial room", () => {
  it("is taken of a member whose membership we lack", async () => {
    const { room, client } = await enter();
    const { next } = await watch(client, room);
    const ghost = aGhost();
    await theySend([presence(ghost, "online", { status_msg: "here", currently_active: true })]);
    const content = { presence: "online", status_msg: "here", currently_active: true };
    expect((await next()).presence).toMatchObject([{ type: "m.presence", sender: ghost, content }]);
    expect((await next()).presence).toEqual([]);
    expect((await presenceOf(client, ghost)).last_active_ago).toBeGreaterThanOrEqual(5_000);
    await theySend([presence(ghost, "online", { status_msg: "here", currently_active: true })]);
    expect((await next()).presence).toEqual([]);
    await theySend([presence(ghost, "unavailable")]);
    expect((await next()).presence).toMatchObject([{ sender: ghost, content: { presence: "unavailable" } }]);
  });

  it("is seen by those of us alone who are in the room, and of strangers by nobody", async () => {
    const { client } = await enter();
    const outsider = await aUser();
    const { next_batch: since } = await outsider.sync({ filter: LAZY });
    const ghost = aGhost();
    await theySend([presence(ghost, "online"), presence("@bob:other.example", "online")]);
    expect((await outsider.sync({ since, filter: LAZY })).presence?.events ?? []).toEqual([]);
    expect((await outsider.call("GET", `presence/${key(ghost)}/status`)).status).toBe(403);
    expect(await presenceOf(client, ghost)).toMatchObject({ presence: "online" });
    expect((await client.call("GET", `presence/${key("@bob:other.example")}/status`)).status).toBe(403);
  });

  it("ends when nothing more is heard of them", async () => {
    const { room, client } = await enter();
    const ghost = aGhost();
    await theySend([presence(ghost, "online")]);
    const { next } = await watch(client, room);
    await endPresence({ ...sidecar.ctx, now: () => Date.now() + 31 * 60_000 });
    const told = (await next()).presence.filter((event: Body) => event.sender === ghost);
    expect(told).toMatchObject([{ content: { presence: "offline" } }]);
  });

  it("is taken of a thousand unknown users of a server, and of no more", async () => {
    const { client } = await enter();
    await database.pool.query(
      `INSERT INTO presence (user_id, server_name, presence, last_active_at, currently_active, online_until, stream_id)
       SELECT '@many' || n || ':' || $1, $1, 'online', now(), true, now(), 0 FROM generate_series(1, 1000) AS n`,
      [resident.serverName],
    );
    const ghost = aGhost();
    await theySend([presence(ghost, "online")]);
    expect(await presenceOf(client, ghost)).toEqual({ presence: "offline" });
    await theySend([presence("@many7:" + resident.serverName, "unavailable")]);
    expect(await presenceOf(client, "@many7:" + resident.serverName)).toMatchObject({ presence: "unavailable" });
    await database.pool.query("DELETE FROM presence WHERE user_id LIKE '@many%'");
  });

  it("is taken of no more than 250 users at a time", async () => {
    const { client } = await enter();
    const many = Array.from({ length: 251 }, () => aGhost());
    const push = many.map((user_id) => ({ user_id, presence: "online" }));
    await theySend([{ edu_type: "m.presence", content: { push } }]);
    expect(await presenceOf(client, many[249] ?? "")).toMatchObject({ presence: "online" });
    expect(await presenceOf(client, many[250] ?? "")).toEqual({ presence: "offline" });
  });

  it("is told to the servers of a room that the user has entered since", async () => {
    const client = await aUser();
    await client.ok("PUT", `presence/${key(client.userId)}/status`, { body: { presence: "online" } });
    await joinVia(client, hostRoom());
    await endPresence(sidecar.ctx);
    await expect.poll(() => presenceSentOf(client)).toMatchObject([{ presence: "online" }]);
    await endPresence(sidecar.ctx);
    await expect.poll(() => presenceSentOf(client)).toHaveLength(1);
  });

  it("goes out to the servers that the join named, once for each change", async () => {
    const { client } = await enter();
    const put = async (state: string): Promise<void> => {
      await client.ok("PUT", `presence/${key(client.userId)}/status`, {
        body: { presence: state, status_msg: "busy" },
      });
    };
    await put("online");
    await put("unavailable");
    await put("unavailable");
    await expect
      .poll(() => presenceSentOf(client).at(-1))
      .toMatchObject({ presence: "unavailable", status_msg: "busy", currently_active: false });
    expect(presenceSentOf(client).length).toBeLessThanOrEqual(2);
  });
});

describe("a transaction with EDUs", () => {
  const BAD: readonly JsonValue[] = [
    null,
    7,
    {},
    { edu_type: 5, content: {} },
    { edu_type: "m.typing" },
    { edu_type: "m.typing", content: { room_id: 5, user_id: {}, typing: "yes" } },
    { edu_type: "m.receipt", content: { "!nowhere:x": [], "!room": { "m.read": { "@a:b": { event_ids: [7] } } } } },
    { edu_type: "m.presence", content: { push: [5, { user_id: "@x" }] } },
    { edu_type: "__proto__", content: {} },
    { edu_type: "org.example.unknown", content: {} },
  ];

  it("is taken with those that can't be read left out, and its PDUs are stored", async () => {
    const { room, client } = await enter();
    const { next } = await watch(client, room);
    const { event } = await resident.sendMessage(room, resident.founder, "between bad EDUs", { push: false });
    const ghost = aGhost();
    const answer = await theySend([...BAD, typing(room, ghost)], [event.pdu]);
    expect(answer).toMatchObject({ status: 200, body: { pdus: { [event.eventId]: {} } } });
    const { ephemeral, inRoom } = await next();
    expect(ephemeral).toEqual([{ type: "m.typing", content: { user_ids: [ghost] } }]);
    expect(inRoom.timeline.events.map((one: Body) => one.event_id)).toEqual([event.eventId]);
  });

  it("is taken where none of its PDUs can be", async () => {
    const { room, client } = await enter();
    const forged = { room_id: room.roomId, type: "m.room.message", sender: resident.founder, content: {} };
    const ghost = aGhost();
    expect(await theySend([typing(room, ghost)], [forged, 5, null])).toMatchObject({ status: 200 });
    expect(await typingIn(client, room)).toEqual([ghost]);
  });

  it("is taken where the database fails for one of them, which is tried twice", async () => {
    const { room, client } = await enter();
    const { event } = await resident.sendMessage(room, resident.founder, "beside a failure", { push: false });
    const ghost = aGhost();
    for (const { times, typists } of [
      { times: 2, typists: [] },
      { times: 1, typists: [ghost] },
    ]) {
      const mend = await breakTable("typing_users", times);
      const answer = await theySend([typing(room, ghost), receipt(room, ghost, `$${times}`)], [event.pdu]);
      expect(answer).toMatchObject({ status: 200, body: { pdus: { [event.eventId]: {} } } });
      expect(await typingIn(client, room)).toEqual(typists);
      await mend();
    }
    const { rooms } = await client.sync({ filter: LAZY });
    const read = rooms.join[room.roomId].ephemeral.events.find((one: Body) => one.type === "m.receipt");
    expect(Object.keys(read.content)).toEqual(["$1"]);
  });

  it("is refused with more than 100", async () => {
    const { room, client } = await enter();
    const many = Array.from({ length: 101 }, () => typing(room, aGhost()));
    expect(await theySend(many)).toMatchObject({ status: 400 });
    expect(await typingIn(client, room)).toEqual([]);
  });
});

describe("a room that ends to be partial", () => {
  it("keeps who typed and what was read in it, but for the receipts of who was no member", async () => {
    const { room, client, complete }: EnteredRoom = await enter();
    const { user } = resident.front;
    const { eventId } = await resident.sendMessage(room, resident.founder, "read this");
    await theySend([typing(room, user), receipt(room, user, eventId), receipt(room, aGhost(), eventId)]);
    await complete();
    const { rooms } = await client.sync();
    expect(rooms.join[room.roomId].ephemeral.events).toEqual([
      { type: "m.typing", content: { user_ids: [user] } },
      { type: "m.receipt", content: { [eventId]: { "m.read": { [user]: { ts: 1_000 } } } } },
    ]);
    const second = await aUser();
    await joinVia(second, room);
    expect(await typingIn(second, room)).toEqual([user]);
  });
});
