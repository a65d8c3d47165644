import { beforeAll, describe, expect, it } from "vitest";
import type { Event, Pdu } from "../../../src/matrix/event.ts";
import { parsePdu } from "../../../src/matrix/event-format.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { membershipOf } from "../../../src/storage/memberships.ts";
import { nextOutboxBatch } from "../../../src/storage/outbox.ts";
import { insertPartialRoom } from "../../../src/storage/partial-state.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { HttpAnswer, LoopbackFederation, RemoteServer } from "../../support/loopback-federation.ts";

const BOB: UserId = "@bob:them.example";
const CAROL: UserId = "@carol:third.example";

const ctx = aRoomsContext(await openTestDatabase());
let federation: LoopbackFederation;
let them: RemoteServer;
let third: RemoteServer;

beforeAll(async () => {
  federation = await startLoopbackFederation(ctx);
  them = await federation.remote("them.example");
  third = await federation.remote("third.example");
});

const VERSIONS = ROOM_VERSIONS.map((version) => `ver=${version}`).join("&");

function makeJoin(server: RemoteServer, roomId: RoomId, userId: UserId, query = VERSIONS): Promise<HttpAnswer> {
  const question = query === "" ? "" : `?${query}`;
  return server.ask("GET", `/_matrix/federation/v1/make_join/${roomId}/${userId}${question}`);
}

function sendJoin(server: RemoteServer, join: Event, query = ""): Promise<HttpAnswer> {
  const path = `/_matrix/federation/v2/send_join/${join.roomId}/${encodeURIComponent(join.eventId)}${query}`;
  return server.ask("PUT", path, join.pdu);
}

interface Template {
  readonly room_version: RoomVersion;
  readonly event: JsonObject;
}

async function templateFor(server: RemoteServer, roomId: RoomId, userId: UserId): Promise<Template> {
  const answer = await makeJoin(server, roomId, userId);
  expect(answer).toMatchObject({ status: 200, body: { event: {} } });
  return answer.body as unknown as Template;
}

async function joinEvent(server: RemoteServer, roomId: RoomId, userId: UserId): Promise<Event> {
  const { event, room_version: version } = await templateFor(server, roomId, userId);
  return server.complete(event, rulesFor(version));
}

interface JoinAnswer {
  readonly state: readonly Pdu[];
  readonly auth_chain: readonly Pdu[];
  readonly event: Pdu;
  readonly members_omitted: boolean;
  readonly servers_in_room?: readonly string[];
  readonly origin: string;
}

async function join(server: RemoteServer, roomId: RoomId, userId: UserId, query = ""): Promise<JoinAnswer> {
  const answer = await sendJoin(server, await joinEvent(server, roomId, userId), query);
  expect(answer).toMatchObject({ status: 200 });
  return answer.body as unknown as JoinAnswer;
}

function state(roomId: RoomId, type: string, content: JsonObject, stateKey = ""): Promise<{ eventId: EventId }> {
  return createEvent(ctx, { roomId, sender: ALICE, type, stateKey, content });
}

function typesOf(pdus: readonly Pdu[]): readonly string[] {
  return pdus.map(({ type }) => type).toSorted();
}

describe.each(ROOM_VERSIONS)("a join of room version %s", (version) => {
  it("passes through make_join and send_join into the room", async () => {
    const roomId = await aRoom(ctx, { version, name: "The room" });
    const template = await templateFor(them, roomId, BOB);
    expect(template.room_version).toBe(version);
    expect(template.event).toMatchObject({
      type: "m.room.member",
      room_id: roomId,
      sender: BOB,
      state_key: BOB,
      content: { membership: "join" },
    });
    expect(template.event).not.toHaveProperty("signatures");
    expect(template.event).not.toHaveProperty("hashes");

    const rules = rulesFor(version);
    const event = them.complete(template.event, rules);
    const answer = (await sendJoin(them, event)).body as unknown as JoinAnswer;
    expect(answer).toMatchObject({ origin: "us.example", members_omitted: false });
    expect(answer.event).toEqual(event.pdu);
    expect(typesOf(answer.state)).toContain("m.room.create");
    expect(typesOf(answer.state)).toContain("m.room.member");
    // Everything that the join and the state refer to is there.
    const ids = new Set([...answer.state, ...answer.auth_chain].map((pdu) => idOf(pdu, version)));
    const edges = [event.pdu, ...answer.state, ...answer.auth_chain].flatMap((pdu) =>
      pdu.auth_events.map((edge) => (typeof edge === "string" ? edge : edge[0])),
    );
    expect(edges.filter((id) => !ids.has(id))).toEqual([]);
    expect(await membershipOf(ctx.database.pool, roomId, BOB)).toMatchObject({
      membership: "join",
      eventId: event.eventId,
    });
  });
});

function idOf(pdu: Pdu, version: RoomVersion): EventId {
  const verdict = parsePdu(pdu, rulesFor(version));
  if (!verdict.ok) throw new Error(verdict.reason);
  return verdict.event.eventId;
}

describe("make_join", () => {
  it("refuses a server that does not know the room's version", async () => {
    const roomId = await aRoom(ctx, { version: "11" });
    const refusal = { status: 400, body: { errcode: "M_INCOMPATIBLE_ROOM_VERSION", room_version: "11" } };
    expect(await makeJoin(them, roomId, BOB, "ver=9&ver=10")).toMatchObject(refusal);
    // None named means version 1.
    expect(await makeJoin(them, roomId, BOB, "")).toMatchObject(refusal);
    const old = await aRoom(ctx, { version: "1" });
    expect(await makeJoin(them, old, BOB, "")).toMatchObject({ status: 200 });
  });

  it("refuses a server that asks for another's user", async () => {
    const roomId = await aRoom(ctx);
    expect(await makeJoin(them, roomId, CAROL)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("does not know rooms that we are not in", async () => {
    expect(await makeJoin(them, "!none:us.example", BOB)).toMatchObject({
      status: 404,
      body: { errcode: "M_NOT_FOUND" },
    });
    const left = await aRoom(ctx);
    await state(left, "m.room.member", { membership: "leave" }, ALICE);
    expect(await makeJoin(them, left, BOB)).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
  });

  it("refuses who may not join", async () => {
    const closed = await aRoom(ctx, { preset: "private_chat" });
    expect(await makeJoin(them, closed, BOB)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const open = await aRoom(ctx);
    await state(open, "m.room.member", { membership: "ban" }, BOB);
    expect(await makeJoin(them, open, BOB)).toMatchObject({
      status: 403,
      body: { errcode: "M_FORBIDDEN", error: expect.stringContaining("ban") },
    });
  });

  it("refuses servers that the access control list denies, send_join included", async () => {
    const roomId = await aRoom(ctx);
    const event = await joinEvent(them, roomId, BOB);
    await state(roomId, "m.room.server_acl", { allow: ["*"], deny: ["them.*"] });
    const refusal = { status: 403, body: { errcode: "M_FORBIDDEN", error: expect.stringContaining("control list") } };
    expect(await makeJoin(them, roomId, BOB)).toMatchObject(refusal);
    expect(await sendJoin(them, event)).toMatchObject(refusal);
    expect(await makeJoin(third, roomId, CAROL)).toMatchObject({ status: 200 });
  });
});

describe("send_join", () => {
  it("answers the same when it is asked again, and tells the others once", async () => {
    const roomId = await aRoom(ctx);
    await join(third, roomId, CAROL);
    const event = await joinEvent(them, roomId, BOB);
    const [first, second] = [await sendJoin(them, event), await sendJoin(them, event)];
    expect(first.status).toBe(200);
    expect(second.body).toEqual(first.body);
    const batch = await nextOutboxBatch(ctx.database.pool, "third.example", { newTxnId: "t", limit: 50 });
    expect(batch?.events.map(({ eventId }) => eventId).filter((id) => id === event.eventId)).toHaveLength(1);
    const back = await nextOutboxBatch(ctx.database.pool, "them.example", { newTxnId: "u", limit: 50 });
    expect(back?.events.map(({ eventId }) => eventId) ?? []).not.toContain(event.eventId);
  });

  it("wraps the answer in version 1", async () => {
    const roomId = await aRoom(ctx);
    const event = await joinEvent(them, roomId, BOB);
    const path = `/_matrix/federation/v1/send_join/${roomId}/${event.eventId}`;
    const { status, body } = await them.ask("PUT", path, event.pdu);
    expect(status).toBe(200);
    expect(body).toEqual([
      200,
      { origin: "us.example", state: expect.any(Array), auth_chain: expect.any(Array), event: event.pdu },
    ]);
  });

  it("refuses what is not the join of the asking server's user", async () => {
    const roomId = await aRoom(ctx);
    const rules = rulesFor("11");
    const { event: template } = await templateFor(them, roomId, BOB);
    const send = async (changes: JsonObject, server = them) =>
      (await sendJoin(server, them.complete({ ...template, ...changes }, rules))).body;
    expect(await send({ content: { membership: "leave" } })).toMatchObject({ errcode: "M_BAD_JSON" });
    expect(await send({ type: "m.room.topic" })).toMatchObject({ errcode: "M_BAD_JSON" });
    expect(await send({ state_key: CAROL })).toMatchObject({ errcode: "M_BAD_JSON" });
    expect(await send({ depth: "deep" })).toMatchObject({ errcode: "M_BAD_JSON" });
    expect(await send({}, third)).toMatchObject({ errcode: "M_FORBIDDEN" });
    expect(await send({ auth_events: [] })).toMatchObject({ errcode: "M_FORBIDDEN" });
    expect(await send({ prev_events: [`$${"x".repeat(43)}`] })).toMatchObject({ errcode: "M_INVALID_PARAM" });
    const signed = them.complete(template, rules);
    const wrongPath = { ...signed, eventId: `$${"y".repeat(43)}` as const };
    expect(await sendJoin(them, wrongPath)).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    const unsigned = { ...signed, pdu: { ...signed.pdu, signatures: {} } };
    expect(await sendJoin(them, unsigned)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const changed = { ...signed, pdu: { ...signed.pdu, content: { membership: "join", displayname: "Not Bob" } } };
    expect(await sendJoin(them, changed)).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(await membershipOf(ctx.database.pool, roomId, BOB)).toBeUndefined();
  });

  it("refuses a user who was banned since make_join, and stores nothing", async () => {
    const roomId = await aRoom(ctx);
    const event = await joinEvent(them, roomId, BOB);
    await state(roomId, "m.room.member", { membership: "ban" }, BOB);
    expect(await sendJoin(them, event)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const { rows } = await ctx.database.pool.query("SELECT 1 FROM events WHERE event_id = $1", [event.eventId]);
    expect(rows).toEqual([]);
  });

  it("knows nothing of rooms whose state is partial", async () => {
    const roomId = await aRoom(ctx);
    const event = await joinEvent(them, roomId, BOB);
    await insertPartialRoom(ctx.database.pool, { roomId, joinEventId: null, joinedVia: null, deviceListsStreamId: 0n });
    const refusal = { status: 404, body: { errcode: "M_NOT_FOUND" } };
    expect(await sendJoin(them, event)).toMatchObject(refusal);
    expect(await makeJoin(them, roomId, BOB)).toMatchObject(refusal);
    for (const path of [`make_leave/${roomId}/${BOB}`, `make_knock/${roomId}/${BOB}?${VERSIONS}`]) {
      expect(await them.ask("GET", `/_matrix/federation/v1/${path}`)).toMatchObject(refusal);
    }
    for (const path of ["v1/send_join", "v1/send_leave", "v2/send_leave", "v1/send_knock"]) {
      const answer = await them.ask("PUT", `/_matrix/federation/${path}/${roomId}/${event.eventId}`, event.pdu);
      expect(answer).toMatchObject(refusal);
    }
  });
});

describe("send_join with omit_members", () => {
  it("takes true and false alone", async () => {
    const roomId = await aRoom(ctx);
    const event = await joinEvent(them, roomId, BOB);
    const refusal = { status: 400, body: { errcode: "M_INVALID_PARAM" } };
    expect(await sendJoin(them, event, "?omit_members=1")).toMatchObject(refusal);
    expect(await sendJoin(them, event, "?omit_members=")).toMatchObject(refusal);
    expect(await sendJoin(them, event, "?omit_members=false")).toMatchObject({
      status: 200,
      body: { members_omitted: false },
    });
  });

  it("leaves the members out, and names the servers that were in the room before", async () => {
    const roomId = await aRoom(ctx, { name: "Named" });
    await join(third, roomId, CAROL);
    const answer = await join(them, roomId, BOB, "?omit_members=true");
    expect(answer.members_omitted).toBe(true);
    expect(answer.servers_in_room).toEqual(["third.example", "us.example"]);
    expect(typesOf(answer.state)).not.toContain("m.room.member");
    expect(typesOf(answer.state)).toContain("m.room.create");
    const inState = new Set(answer.state.map((pdu) => idOf(pdu, "11")));
    const chain = answer.auth_chain.map((pdu) => idOf(pdu, "11"));
    expect(chain.filter((id) => inState.has(id))).toEqual([]);
    // Alice made the room; Carol authorises nothing that is left.
    expect(answer.auth_chain.map((pdu) => pdu.state_key)).toContain(ALICE);
    expect(answer.auth_chain.map((pdu) => pdu.state_key)).not.toContain(CAROL);
  });

  it("has the joiner's earlier membership in the auth chain, since the join names it", async () => {
    const roomId = await aRoom(ctx, { name: "Named" });
    await join(them, roomId, BOB);
    const left = await state(roomId, "m.room.member", { membership: "leave" }, BOB);
    const answer = await join(them, roomId, BOB, "?omit_members=true");
    expect(answer.event.auth_events).toContain(left.eventId);
    expect(answer.auth_chain.map((pdu) => idOf(pdu, "11"))).toContain(left.eventId);
  });

  it("shows some members of a room without a name", async () => {
    const roomId = await aRoom(ctx);
    await join(third, roomId, CAROL);
    for (let index = 0; index < 6; index++) await join(third, roomId, `@friend${index}:third.example`);
    const answer = await join(them, roomId, BOB, "?omit_members=true");
    expect(answer.members_omitted).toBe(true);
    const heroes = answer.state.filter(({ type }) => type === "m.room.member");
    expect(heroes).toHaveLength(5);
    expect(heroes.map((pdu) => pdu.state_key)).not.toContain(BOB);
    const alias = await aRoom(ctx, { aliasName: "known" });
    await join(third, alias, CAROL);
    expect(typesOf((await join(them, alias, BOB, "?omit_members=true")).state)).not.toContain("m.room.member");
  });

  it("admits that nothing was left out of a tiny room", async () => {
    const roomId = await aRoom(ctx);
    const answer = await join(them, roomId, BOB, "?omit_members=true");
    expect(answer.members_omitted).toBe(false);
    expect(answer.state.filter(({ type }) => type === "m.room.member").map((pdu) => pdu.state_key)).toEqual([ALICE]);
  });

  it("has the create event of room version 12 in the state, which no auth chain names", async () => {
    const roomId = await aRoom(ctx, { version: "12", name: "Twelve" });
    const answer = await join(them, roomId, BOB, "?omit_members=true");
    expect(typesOf(answer.state)).toContain("m.room.create");
  });
});

describe("a restricted room", () => {
  async function restrictedRoom(allowed: RoomId, version: RoomVersion = "10"): Promise<RoomId> {
    const content = { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: allowed }] };
    return await aRoom(ctx, { version, initialState: [{ type: "m.room.join_rules", stateKey: "", content }] });
  }

  it("lets in who is in an allowed room, with our signature", async () => {
    const lobby = await aRoom(ctx);
    await join(them, lobby, BOB);
    const roomId = await restrictedRoom(lobby);
    const template = await templateFor(them, roomId, BOB);
    expect(template.event["content"]).toMatchObject({ join_authorised_via_users_server: ALICE });
    const event = them.complete(template.event, rulesFor("10"));
    const answer = (await sendJoin(them, event)).body as unknown as JoinAnswer;
    expect(Object.keys(answer.event.signatures ?? {}).toSorted()).toEqual(["them.example", "us.example"]);
    expect(idOf(answer.event, "10")).toBe(event.eventId);
    expect(await membershipOf(ctx.database.pool, roomId, BOB)).toMatchObject({ membership: "join" });
  });

  it("refuses who is in none of them", async () => {
    const roomId = await restrictedRoom(await aRoom(ctx));
    expect(await makeJoin(them, roomId, BOB)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("does not sign for a user who has left the allowed room since", async () => {
    const lobby = await aRoom(ctx);
    await join(them, lobby, BOB);
    const roomId = await restrictedRoom(lobby);
    const event = await joinEvent(them, roomId, BOB);
    await state(lobby, "m.room.member", { membership: "leave" }, BOB);
    expect(await sendJoin(them, event)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("says that it can't tell about rooms that we are not in", async () => {
    const roomId = await restrictedRoom("!elsewhere:third.example");
    expect(await makeJoin(them, roomId, BOB)).toMatchObject({
      status: 400,
      body: { errcode: "M_UNABLE_TO_AUTHORISE_JOIN" },
    });
  });

  it("says that it can't let anyone in where none of our users may invite", async () => {
    const lobby = await aRoom(ctx);
    await join(them, lobby, BOB);
    const roomId = await restrictedRoom(lobby);
    await state(roomId, "m.room.power_levels", { users: { [ALICE]: 100 }, invite: 100, state_default: 50 });
    await state(roomId, "m.room.power_levels", { users: { [ALICE]: 50 }, invite: 100, state_default: 50 });
    expect(await makeJoin(them, roomId, BOB)).toMatchObject({
      status: 400,
      body: { errcode: "M_UNABLE_TO_GRANT_JOIN" },
    });
  });

  it("asks nobody to vouch for an invited user", async () => {
    const roomId = await restrictedRoom("!elsewhere:third.example");
    await state(roomId, "m.room.member", { membership: "invite" }, BOB);
    const { event } = await templateFor(them, roomId, BOB);
    expect(event["content"]).toEqual({ membership: "join" });
  });
});
