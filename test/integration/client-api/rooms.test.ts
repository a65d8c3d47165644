import { describe, expect, it } from "vitest";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const api = await startLoopbackClientApi(await openTestDatabase());
const alice = await api.register("alice");
const bob = await api.register("bob");

const at = (roomId: string, rest: string): string => `rooms/${encodeURIComponent(roomId)}/${rest}`;
const key = encodeURIComponent;

async function stateOf(client: TestClient, roomId: string, type: string, stateKey = ""): Promise<Body> {
  return client.ok("GET", at(roomId, `state/${type}/${key(stateKey)}`));
}

async function join(client: TestClient, roomId: string): Promise<void> {
  await client.ok("POST", `join/${key(roomId)}`);
}

describe("createRoom", () => {
  it.each(ROOM_VERSIONS)("makes a room of version %s with all its first events", async (version) => {
    const roomId = await alice.createRoom(version, {
      preset: "public_chat",
      name: "Tea",
      topic: "Leaves",
      room_alias_name: `tea${version}`,
      initial_state: [{ type: "m.room.guest_access", content: { guest_access: "can_join" } }],
      power_level_content_override: { events_default: 5 },
      creation_content: { "m.federate": false },
    });
    const state: Body[] = await alice.ok("GET", at(roomId, "state"));
    const content = (type: string): Body => state.find((event) => event.type === type)?.content;
    expect(content("m.room.create")).toMatchObject({ room_version: version, "m.federate": false });
    expect(content("m.room.member")).toEqual({ membership: "join" });
    expect(content("m.room.join_rules")).toEqual({ join_rule: "public" });
    expect(content("m.room.history_visibility")).toEqual({ history_visibility: "shared" });
    expect(content("m.room.guest_access")).toEqual({ guest_access: "can_join" });
    expect(content("m.room.name")).toEqual({ name: "Tea" });
    expect(content("m.room.topic")).toMatchObject({ topic: "Leaves" });
    expect(content("m.room.canonical_alias")).toEqual({ alias: `#tea${version}:us.example` });
    expect(content("m.room.power_levels").events_default).toBe(5);
    expect(content("m.room.power_levels").users).toEqual(version === "12" ? {} : { [alice.userId]: 100 });
    expect(roomId.includes(":")).toBe(version !== "12");
    await join(bob, `#tea${version}:us.example`);
    expect((await bob.ok("GET", "joined_rooms")).joined_rooms).toContain(roomId);
  });

  it("refuses a version that it does not know, and fields of the wrong type", async () => {
    const unknown = await alice.call("POST", "createRoom", { body: { room_version: "99" } });
    expect(unknown).toMatchObject({ status: 400, body: { errcode: "M_UNSUPPORTED_ROOM_VERSION" } });
    const wrong = await alice.call("POST", "createRoom", { body: { invite: ["bob"] } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(wrong.body.error).toContain("body.invite.0");
  });

  it("makes nothing at all where the alias is taken", async () => {
    await alice.createRoom("11", { room_alias_name: "taken" });
    const before = (await alice.ok("GET", "joined_rooms")).joined_rooms;
    const again = await alice.call("POST", "createRoom", { body: { room_alias_name: "taken" } });
    expect(again).toMatchObject({ status: 400, body: { errcode: "M_ROOM_IN_USE" } });
    expect((await alice.ok("GET", "joined_rooms")).joined_rooms).toEqual(before);
  });

  it("gives invited users the creator's power in a trusted private chat", async () => {
    const more = { preset: "trusted_private_chat", invite: [bob.userId] };
    const old = await alice.createRoom("11", more);
    const { users } = await stateOf(alice, old, "m.room.power_levels");
    expect(users).toEqual({ [alice.userId]: 100, [bob.userId]: 100 });
    const privileged = await alice.createRoom("12", more);
    const create = await stateOf(alice, privileged, "m.room.create");
    expect(create.additional_creators).toEqual([bob.userId]);
    const levels = { users: { [alice.userId]: 100 } };
    const body = { room_version: "12", power_level_content_override: levels };
    const refused = await alice.call("POST", "createRoom", { body });
    expect(refused).toMatchObject({ status: 400, body: { errcode: "M_INVALID_ROOM_STATE" } });
  });
});

describe("membership", () => {
  it("goes through invitation, join, kick, ban, unban and leave", async () => {
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    const membership = async (): Promise<string> =>
      (await stateOf(alice, roomId, "m.room.member", bob.userId)).membership;
    expect(await membership()).toBe("invite");
    await join(bob, roomId);
    expect(await membership()).toBe("join");
    const target = { user_id: bob.userId, reason: "Spam" };
    expect((await bob.call("POST", at(roomId, "kick"), { body: { user_id: alice.userId } })).status).toBe(403);
    await alice.ok("POST", at(roomId, "kick"), { body: target });
    expect(await stateOf(alice, roomId, "m.room.member", bob.userId)).toEqual({ membership: "leave", reason: "Spam" });
    expect((await alice.call("POST", at(roomId, "kick"), { body: target })).status).toBe(403);
    await alice.ok("POST", at(roomId, "ban"), { body: target });
    expect(await membership()).toBe("ban");
    expect((await bob.call("POST", at(roomId, "join"))).status).toBe(403);
    await alice.ok("POST", at(roomId, "unban"), { body: { user_id: bob.userId } });
    expect(await membership()).toBe("leave");
    await alice.ok("POST", at(roomId, "invite"), { body: { user_id: bob.userId } });
    await bob.ok("POST", at(roomId, "join"), { body: { reason: "Back" } });
    expect(await stateOf(alice, roomId, "m.room.member", bob.userId)).toEqual({ membership: "join", reason: "Back" });
    await bob.ok("POST", at(roomId, "leave"));
    expect(await membership()).toBe("leave");
  });

  it("is left once however often that is asked, by whoever is or was in it and is not banned", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    const leave = async (): Promise<unknown> => bob.call("POST", at(roomId, "leave"));
    expect(await leave()).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    await join(bob, roomId);
    expect(await leave()).toMatchObject({ status: 200, body: {} });
    const latest = async (): Promise<unknown> =>
      (await alice.ok("GET", at(roomId, "messages"), { query: { dir: "b", limit: "1" } })).chunk[0].event_id;
    const left = await latest();
    expect(await leave()).toMatchObject({ status: 200, body: {} });
    expect(await latest()).toBe(left);
    await alice.ok("POST", at(roomId, "ban"), { body: { user_id: bob.userId } });
    expect(await leave()).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("shows a room to its members alone, and to those who left it as it was", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    for (const place of ["state", "members", "joined_members", "messages?dir=b", "state/m.room.create/"]) {
      const answer = await bob.call("GET", at(roomId, place));
      expect(answer, place).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    }
    await join(bob, roomId);
    await alice.send(roomId, "before");
    await bob.ok("POST", at(roomId, "leave"));
    const secret = await alice.send(roomId, "after");
    await alice.ok("PUT", at(roomId, "state/m.room.name/"), { body: { name: "New" } });
    expect((await bob.call("GET", at(roomId, "state/m.room.name/"))).status).toBe(404);
    const { chunk } = await bob.ok("GET", at(roomId, "messages"), { query: { dir: "b", limit: "50" } });
    expect(chunk[0]).toMatchObject({ type: "m.room.member", state_key: bob.userId });
    expect(chunk[1].content.body).toBe("before");
    expect((await bob.call("GET", at(roomId, `event/${key(secret)}`))).status).toBe(404);
  });

  it("shows nothing to those who declined an invitation", async () => {
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    await bob.ok("POST", at(roomId, "leave"));
    expect((await bob.call("GET", at(roomId, "state"))).status).toBe(403);
    expect((await bob.call("GET", at(roomId, "messages"), { query: { dir: "b" } })).status).toBe(403);
  });

  it("lists members, all or of one membership", async () => {
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    const users = async (query: Record<string, string>): Promise<string[]> =>
      (await alice.ok("GET", at(roomId, "members"), { query })).chunk.map((event: Body) => event.state_key).toSorted();
    expect(await users({})).toEqual([alice.userId, bob.userId]);
    expect(await users({ membership: "invite" })).toEqual([bob.userId]);
    expect(await users({ not_membership: "invite" })).toEqual([alice.userId]);
    expect((await alice.ok("GET", at(roomId, "joined_members"))).joined).toEqual({ [alice.userId]: {} });
    const wrong = await alice.call("GET", at(roomId, "members"), { query: { membership: "boss" } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });
});

describe("send", () => {
  it("makes one event of a repeated request, also of two at the same time", async () => {
    const roomId = await alice.createRoom();
    const body = { msgtype: "m.text", body: "once" };
    const send = async (client: TestClient): Promise<string> =>
      (await client.ok("PUT", at(roomId, "send/m.room.message/same"), { body })).event_id;
    const ids = await Promise.all([send(alice), send(alice), send(alice)]);
    expect(new Set([...ids, await send(alice)]).size).toBe(1);
    const { chunk } = await alice.ok("GET", at(roomId, "messages"), { query: { dir: "b", limit: "50" } });
    expect(chunk.filter((event: Body) => event.content.body === "once")).toHaveLength(1);
    const other = await api.login("alice");
    expect(await send(other)).not.toBe(ids[0]);
    expect((await alice.ok("GET", at(roomId, `event/${key(ids[0] ?? "")}`))).unsigned.transaction_id).toBe("same");
    const seenByOther = await other.ok("GET", at(roomId, `event/${key(ids[0] ?? "")}`));
    expect(seenByOther.unsigned).not.toHaveProperty("transaction_id");
  });

  it("counts a transaction id for one room and one kind of request", async () => {
    const [one, two] = [await alice.createRoom(), await alice.createRoom()];
    const body = { msgtype: "m.text", body: "hello" };
    const first = await alice.ok("PUT", at(one, "send/m.room.message/t"), { body });
    const second = await alice.ok("PUT", at(two, "send/m.room.message/t"), { body });
    expect(second.event_id).not.toBe(first.event_id);
    const redaction = await alice.ok("PUT", at(one, `redact/${key(first.event_id)}/t`), { body: {} });
    expect(redaction.event_id).not.toBe(first.event_id);
  });

  it("refuses what the room does not allow, and who is not in it", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    const body = { msgtype: "m.text", body: "hi" };
    const outside = await bob.call("PUT", at(roomId, "send/m.room.message/x"), { body });
    expect(outside).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    await join(bob, roomId);
    const topic = await bob.call("PUT", at(roomId, "state/m.room.topic"), { body: { topic: "Mine" } });
    expect(topic).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });
});

describe("state", () => {
  it("is set and read under an empty key, with or without the slash, and under others", async () => {
    const roomId = await alice.createRoom();
    await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: "One" } });
    expect(await stateOf(alice, roomId, "m.room.name")).toEqual({ name: "One" });
    await alice.ok("PUT", at(roomId, "state/m.room.name/"), { body: { name: "Two" } });
    expect(await alice.ok("GET", at(roomId, "state/m.room.name"))).toEqual({ name: "Two" });
    await alice.ok("PUT", at(roomId, `state/org.example.thing/${key("a/b !%")}`), { body: { on: true } });
    const query = { format: "event" };
    const event = await alice.ok("GET", at(roomId, `state/org.example.thing/${key("a/b !%")}`), { query });
    expect(event).toMatchObject({ state_key: "a/b !%", content: { on: true }, sender: alice.userId });
    const missing = await alice.call("GET", at(roomId, "state/org.example.other"));
    expect(missing).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
  });
});

describe("redact", () => {
  it.each(ROOM_VERSIONS)("empties an event of a room of version %s for whoever reads it later", async (version) => {
    const roomId = await alice.createRoom(version, { preset: "public_chat" });
    await join(bob, roomId);
    const eventId = await bob.send(roomId, "oops");
    await alice.ok("PUT", at(roomId, `redact/${key(eventId)}/r${version}`), { body: { reason: "Typo" } });
    const event = await bob.ok("GET", at(roomId, `event/${key(eventId)}`));
    expect(event.content).toEqual({});
    expect(event.unsigned.redacted_because).toMatchObject({
      sender: alice.userId,
      redacts: eventId,
      content: { reason: "Typo", redacts: eventId },
    });
  });

  it("takes a redaction that is sent as an event", async () => {
    const roomId = await alice.createRoom("10");
    const eventId = await alice.send(roomId, "oops");
    await alice.ok("PUT", at(roomId, "send/m.room.redaction/s"), { body: { redacts: eventId } });
    expect((await alice.ok("GET", at(roomId, `event/${key(eventId)}`))).content).toEqual({});
  });
});

describe("directory", () => {
  it("resolves, adds and deletes aliases", async () => {
    const roomId = await alice.createRoom();
    const place = `directory/room/${key("#lounge:us.example")}`;
    expect(await api.call("GET", place)).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    expect((await bob.call("PUT", place, { body: { room_id: roomId } })).status).toBe(403);
    await alice.ok("PUT", place, { body: { room_id: roomId } });
    expect((await api.call("GET", place)).body).toEqual({ room_id: roomId, servers: ["us.example"] });
    expect((await alice.call("PUT", place, { body: { room_id: roomId } })).status).toBe(409);
    expect((await bob.call("DELETE", place)).status).toBe(403);
    await alice.ok("DELETE", place);
    expect((await api.call("GET", place)).status).toBe(404);
  });
});

describe("messages", () => {
  it("pages through the timeline both ways, without gaps and without repeats", async () => {
    const roomId = await alice.createRoom();
    const sent: string[] = [];
    for (let number = 0; number < 12; number += 1) sent.push(await alice.send(roomId, `m${number}`));
    const pages = async (dir: string): Promise<Body[]> => {
      const all: Body[] = [];
      let from: string | undefined;
      do {
        const query = { dir, limit: "5", ...(from === undefined ? {} : { from }) };
        const page: Body = await alice.ok("GET", at(roomId, "messages"), { query });
        expect(page.chunk.length).toBeLessThanOrEqual(5);
        all.push(...page.chunk);
        from = page.end;
      } while (from !== undefined);
      return all;
    };
    const forward = await pages("f");
    const ids = forward.map((event) => event.event_id);
    expect(ids.slice(-12)).toEqual(sent);
    expect(forward[0]).toMatchObject({ type: "m.room.create", room_id: roomId });
    expect(new Set(ids).size).toBe(ids.length);
    expect((await pages("b")).map((event) => event.event_id)).toEqual(ids.toReversed());
  });

  it("stops at `to`, filters, and refuses tokens of others", async () => {
    const roomId = await alice.createRoom();
    const { next_batch: to } = await alice.sync();
    await alice.send(roomId, "new");
    await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: "Named" } });
    const page = await alice.ok("GET", at(roomId, "messages"), { query: { dir: "b", to } });
    expect(page.chunk.map((event: Body) => event.type)).toEqual(["m.room.name", "m.room.message"]);
    expect(page.end).toBeUndefined();
    const filter = JSON.stringify({ types: ["m.room.m*"], not_types: ["*.member"], lazy_load_members: true });
    const messages = await alice.ok("GET", at(roomId, "messages"), { query: { dir: "b", filter } });
    expect(messages.chunk.map((event: Body) => event.type)).toEqual(["m.room.message"]);
    expect(messages.state.map((event: Body) => event.state_key)).toEqual([alice.userId]);
    const wrong = await alice.call("GET", at(roomId, "messages"), { query: { dir: "b", from: "t47" } });
    expect(wrong).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });

  it("lead on from the context of an event", async () => {
    const roomId = await alice.createRoom();
    const ids: string[] = [];
    for (let number = 0; number < 7; number += 1) ids.push(await alice.send(roomId, `m${number}`));
    const place = at(roomId, `context/${key(ids[3] ?? "")}`);
    const context = await alice.ok("GET", place, { query: { limit: "4" } });
    const idsOf = (events: readonly Body[]): string[] => events.map((event) => event.event_id);
    expect(context.event.event_id).toBe(ids[3]);
    expect(idsOf(context.events_before)).toEqual([ids[2], ids[1]]);
    expect(idsOf(context.events_after)).toEqual([ids[4], ids[5]]);
    expect(context.state.map((event: Body) => event.type)).toContain("m.room.power_levels");
    const page = async (dir: string, from: string): Promise<Body> =>
      alice.ok("GET", at(roomId, "messages"), { query: { dir, from, limit: "1" } });
    expect(idsOf((await page("b", context.start)).chunk)).toEqual([ids[0]]);
    expect(idsOf((await page("f", context.end)).chunk)).toEqual([ids[6]]);
    expect((await bob.call("GET", place)).status).toBe(403);
  });

  it("shows what the history visibility lets a newcomer see", async () => {
    for (const [visibility, seen] of [
      ["shared", true],
      ["joined", false],
      ["world_readable", true],
    ] as const) {
      const roomId = await alice.createRoom("11", {
        preset: "public_chat",
        initial_state: [{ type: "m.room.history_visibility", content: { history_visibility: visibility } }],
      });
      const eventId = await alice.send(roomId, "early");
      await join(bob, roomId);
      const later = await alice.send(roomId, "late");
      const { chunk } = await bob.ok("GET", at(roomId, "messages"), { query: { dir: "b", limit: "50" } });
      const ids = chunk.map((event: Body) => event.event_id);
      expect(ids, visibility).toContain(later);
      expect(ids.includes(eventId), visibility).toBe(seen);
      expect((await bob.call("GET", at(roomId, `event/${key(eventId)}`))).status, visibility).toBe(seen ? 200 : 404);
      // Of an event whose state is not known any more, the room's present rule decides.
      await api.ctx.database.pool.query("UPDATE events SET state_before = NULL WHERE event_id = $1", [eventId]);
      expect((await bob.call("GET", at(roomId, `event/${key(eventId)}`))).status, visibility).toBe(seen ? 200 : 404);
    }
  });
});

describe("an event that no room may hold", () => {
  const [small, large] = [
    { status: 400, body: { errcode: "M_BAD_JSON" } },
    { status: 413, body: { errcode: "M_TOO_LARGE" } },
  ];
  it.each([
    { what: "a fraction", path: "send/m.room.message/a", body: '{"body":1.5}', answer: small },
    { what: "an integer beyond 2^53", path: "send/m.room.message/b", body: '{"n":9007199254740993}', answer: small },
    { what: "a content that is no object", path: "send/m.room.message/c", body: "[]", answer: small },
    { what: "half a surrogate pair", path: "send/m.room.message/d", body: '{"body":"\\ud800"}', answer: small },
    { what: "a NUL in its type", path: "send/a%00b/e", body: "{}", answer: small },
    { what: "too many bytes", path: "send/t/f", body: JSON.stringify({ body: "x".repeat(66_000) }), answer: large },
    { what: "a type that is too long", path: `send/${"t".repeat(256)}/g`, body: "{}", answer: large },
    { what: "a state key that is too long", path: `state/t/${"k".repeat(256)}`, body: "{}", answer: large },
  ])("is refused: $what", async ({ path, body, answer }) => {
    const roomId = await alice.createRoom();
    expect(await alice.call("PUT", at(roomId, path), { body })).toMatchObject(answer);
  });
});
