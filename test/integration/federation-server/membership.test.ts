import { beforeAll, describe, expect, it } from "vitest";
import type { Event, Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { redact } from "../../../src/matrix/redaction.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { verifyJsonSignature } from "../../../src/matrix/signatures.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { insertOutliers, loadEvent } from "../../../src/storage/events.ts";
import { loadInviteRoomStates } from "../../../src/storage/invites.ts";
import { membershipOf } from "../../../src/storage/memberships.ts";
import { insertOrCorrectRoom, roomRules } from "../../../src/storage/rooms.ts";
import { currentStreamPosition, localMembershipChanges } from "../../../src/storage/streams.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { HttpAnswer, RemoteServer } from "../../support/loopback-federation.ts";

const BOB: UserId = "@bob:them.example";
const CAROL: UserId = "@carol:third.example";

const ctx = aRoomsContext(await openTestDatabase());
let them: RemoteServer;
let third: RemoteServer;

beforeAll(async () => {
  const federation = await startLoopbackFederation(ctx);
  them = await federation.remote("them.example");
  third = await federation.remote("third.example");
});

type Handshake = "join" | "leave" | "knock";

function make(server: RemoteServer, kind: Handshake, roomId: RoomId, userId: UserId): Promise<HttpAnswer> {
  const versions = kind === "leave" ? "" : "?ver=6&ver=9&ver=11&ver=12";
  return server.ask("GET", `/_matrix/federation/v1/make_${kind}/${roomId}/${userId}${versions}`);
}

async function completed(server: RemoteServer, kind: Handshake, roomId: RoomId, userId: UserId): Promise<Event> {
  const answer = await make(server, kind, roomId, userId);
  expect(answer).toMatchObject({ status: 200, body: { event: { content: { membership: kind } } } });
  const { event, room_version: version } = answer.body as { readonly event: JsonObject; readonly room_version: string };
  return server.complete(event, rulesFor(version as RoomVersion));
}

function send(server: RemoteServer, path: string, event: Event): Promise<HttpAnswer> {
  return server.ask("PUT", `/_matrix/federation/${path}/${event.roomId}/${event.eventId}`, event.pdu);
}

async function joined(server: RemoteServer, roomId: RoomId, userId: UserId): Promise<void> {
  const event = await completed(server, "join", roomId, userId);
  expect(await send(server, "v2/send_join", event)).toMatchObject({ status: 200 });
}

function state(roomId: RoomId, type: string, content: JsonObject, stateKey = ""): Promise<unknown> {
  return createEvent(ctx, { roomId, sender: ALICE, type, stateKey, content });
}

async function membership(roomId: RoomId, userId: UserId): Promise<string | undefined> {
  return (await membershipOf(ctx.database.pool, roomId, userId))?.membership;
}

describe("make_leave and send_leave", () => {
  it("take a user out of the room", async () => {
    const roomId = await aRoom(ctx);
    await joined(them, roomId, BOB);
    const leave = await completed(them, "leave", roomId, BOB);
    expect(await send(them, "v2/send_leave", leave)).toMatchObject({ status: 200, body: {} });
    expect(await membership(roomId, BOB)).toBe("leave");
  });

  it("wrap the answer in version 1", async () => {
    const roomId = await aRoom(ctx);
    await joined(them, roomId, BOB);
    const answer = await send(them, "v1/send_leave", await completed(them, "leave", roomId, BOB));
    expect(answer.body).toEqual([200, {}]);
  });

  it("let an invited user refuse", async () => {
    const roomId = await aRoom(ctx, { preset: "private_chat" });
    await state(roomId, "m.room.member", { membership: "invite" }, BOB);
    expect(await send(them, "v2/send_leave", await completed(them, "leave", roomId, BOB))).toMatchObject({
      status: 200,
    });
    expect(await membership(roomId, BOB)).toBe("leave");
  });

  it("refuse who is not in the room, and who is banned", async () => {
    const roomId = await aRoom(ctx);
    expect(await make(them, "leave", roomId, BOB)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    await state(roomId, "m.room.member", { membership: "ban" }, BOB);
    expect(await make(them, "leave", roomId, BOB)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("refuse another server's user, and another membership than leave", async () => {
    const roomId = await aRoom(ctx);
    await joined(them, roomId, BOB);
    expect(await make(third, "leave", roomId, BOB)).toMatchObject({ status: 403 });
    const leave = await completed(them, "leave", roomId, BOB);
    expect(await send(third, "v2/send_leave", leave)).toMatchObject({ status: 403 });
    const join = await completed(them, "join", roomId, BOB);
    expect(await send(them, "v2/send_leave", join)).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(await membership(roomId, BOB)).toBe("join");
  });
});

describe("make_knock and send_knock", () => {
  async function knockableRoom(version: RoomVersion = "11"): Promise<RoomId> {
    const content = { join_rule: "knock" };
    const initialState = [{ type: "m.room.join_rules", stateKey: "", content }];
    return await aRoom(ctx, { version, name: "Knock here", initialState });
  }

  it("take a knock, and tell what room it is", async () => {
    const roomId = await knockableRoom();
    const knock = await completed(them, "knock", roomId, BOB);
    const { status, body } = await send(them, "v1/send_knock", knock);
    expect(status).toBe(200);
    const { knock_room_state: shown } = body as { readonly knock_room_state: readonly Pdu[] };
    expect(shown.map(({ type }) => type).toSorted()).toEqual(["m.room.create", "m.room.join_rules", "m.room.name"]);
    expect(await membership(roomId, BOB)).toBe("knock");
  });

  it("refuse where the room does not want knocks", async () => {
    const roomId = await aRoom(ctx, { preset: "private_chat" });
    expect(await make(them, "knock", roomId, BOB)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("refuse in room versions that don't know knocking, or that the asking server does not", async () => {
    const old = await aRoom(ctx, { version: "6" });
    expect(await make(them, "knock", old, BOB)).toMatchObject({
      status: 403,
      body: { errcode: "M_FORBIDDEN", error: expect.stringContaining("does not know knocking") },
    });
    const other = await knockableRoom("10");
    expect(await make(them, "knock", other, BOB)).toMatchObject({
      status: 400,
      body: { errcode: "M_INCOMPATIBLE_ROOM_VERSION", room_version: "10" },
    });
  });
});

describe("invite", () => {
  const ROOM: RoomId = "!theirs:them.example";

  function anInvite(version: RoomVersion, changes: JsonObject = {}): Event {
    const rules = rulesFor(version);
    const template = {
      type: "m.room.member",
      room_id: rules.roomIdIsCreateEventHash ? `!${"r".repeat(43)}` : ROOM,
      sender: BOB,
      state_key: ALICE,
      content: { membership: "invite", displayname: `Alice ${Math.random()}` },
      prev_events: [],
      auth_events: [],
      depth: 5,
      ...changes,
    };
    const event = them.complete(template, rules);
    return { ...event, roomId: event.pdu.room_id as RoomId };
  }

  function sendInvite(event: Event, version: string, inviteRoomState: JsonValue = []): Promise<HttpAnswer> {
    const path = `/_matrix/federation/v2/invite/${event.roomId}/${encodeURIComponent(event.eventId)}`;
    return them.ask("PUT", path, { room_version: version, event: event.pdu, invite_room_state: inviteRoomState });
  }

  const NAME = { type: "m.room.name", state_key: "", sender: BOB, content: { name: "Theirs" } };

  it.each<RoomVersion>(["1", "6", "11"])("is signed and stored for our user in room version %s", async (version) => {
    const rules = rulesFor(version);
    const event = anInvite(version, version === "1" ? { room_id: "!one:them.example" } : {});
    const before = await currentStreamPosition(ctx.database.pool);
    const extra = { ...NAME, event_id: "$x", hashes: {}, unsigned: { age: 1 } };
    const answer = await sendInvite(event, version, [extra, "nonsense", { type: "m.room.topic" }]);
    expect(answer.status).toBe(200);
    const { event: signed } = answer.body as { readonly event: Pdu };
    expect(eventIdOf(signed, rules)).toBe(event.eventId);
    const { keyId, publicKey } = ctx.signingKey;
    expect(verifyJsonSignature(redact(signed, rules), "us.example", keyId, publicKey)).toBe(true);
    expect(Object.keys(signed.signatures ?? {}).toSorted()).toEqual(["them.example", "us.example"]);

    const stored = await loadEvent(ctx.database.pool, event.eventId);
    expect(stored).toMatchObject({ outlier: true, rejection: null, roomId: event.roomId });
    expect(Object.keys(stored?.pdu.signatures ?? {})).toContain("us.example");
    const to = await currentStreamPosition(ctx.database.pool);
    expect(await localMembershipChanges(ctx.database.pool, ALICE, { from: before, to })).toEqual([
      expect.objectContaining({ roomId: event.roomId, membership: "invite", eventId: event.eventId }),
    ]);
    const shown = await loadInviteRoomStates(ctx.database.pool, [event.eventId]);
    expect(shown.get(event.eventId)).toEqual([NAME]);
  });

  it("proves its room by the create event in room version 12", async () => {
    const rules = rulesFor("12");
    const created = { type: "m.room.create", state_key: "", sender: BOB, content: { room_version: "12" } };
    const place = { prev_events: [], auth_events: [], depth: 1 };
    const { eventId, pdu: create } = them.complete({ ...created, ...place }, rules);
    const room_id: RoomId = `!${eventId.slice(1)}`;
    const name = them.complete({ ...NAME, ...place, room_id }, rules).pdu;
    const event = anInvite("12", { room_id });
    const invalid = { status: 400, body: { errcode: "M_INVALID_PARAM" } };
    expect(await sendInvite(event, "12", [name])).toMatchObject({ status: 400, body: { errcode: "M_MISSING_PARAM" } });
    expect(await sendInvite(event, "12", [create, NAME])).toMatchObject(invalid);
    expect(await sendInvite(anInvite("12"), "12", [create])).toMatchObject(invalid);
    expect(await sendInvite(event, "12", [create, name])).toMatchObject({ status: 200 });
    const shown = await loadInviteRoomStates(ctx.database.pool, [event.eventId]);
    expect(shown.get(event.eventId)).toEqual([created, NAME]);
  });

  it("is told to the user once, however often it is sent", async () => {
    const event = anInvite("11");
    const first = await sendInvite(event, "11");
    const position = await currentStreamPosition(ctx.database.pool);
    expect((await sendInvite(event, "11")).body).toEqual(first.body);
    expect(await currentStreamPosition(ctx.database.pool)).toBe(position);
  });

  it("is told to the user although a join that failed has left it behind", async () => {
    const { pool } = ctx.database;
    const event = anInvite("11", { room_id: "!left-behind:them.example" });
    await insertOrCorrectRoom(pool, { roomId: event.roomId, roomVersion: "11" });
    await insertOutliers(pool, [{ event, rejection: null }]);
    const from = await currentStreamPosition(pool);
    expect(await sendInvite(event, "11")).toMatchObject({ status: 200 });
    expect(await sendInvite(event, "11")).toMatchObject({ status: 200 });
    const told = await localMembershipChanges(pool, ALICE, { from, to: await currentStreamPosition(pool) });
    expect(told).toMatchObject([{ roomId: event.roomId, membership: "invite", eventId: event.eventId }]);
  });

  it("comes by version 1 with the room's state in its unsigned data", async () => {
    const event = anInvite("1", { room_id: "!old:them.example" });
    const pdu = { ...event.pdu, unsigned: { invite_room_state: [NAME] } };
    const path = `/_matrix/federation/v1/invite/${event.roomId}/${encodeURIComponent(event.eventId)}`;
    const { status, body } = await them.ask("PUT", path, pdu);
    expect(status).toBe(200);
    expect(body).toEqual([200, { event: expect.objectContaining({ type: "m.room.member" }) }]);
    const shown = await loadInviteRoomStates(ctx.database.pool, [event.eventId]);
    expect(shown.get(event.eventId)).toEqual([NAME]);
  });

  it("does not settle the room's version, which it may lie about", async () => {
    const { pool } = ctx.database;
    const room_id: RoomId = "!lie:them.example";
    await sendInvite(anInvite("9", { room_id }), "9");
    expect((await roomRules(pool, room_id))?.version).toBe("9");
    await sendInvite(anInvite("11", { room_id }), "11");
    expect((await roomRules(pool, room_id))?.version).toBe("11");
  });

  it("is refused in a room version that we don't know", async () => {
    expect(await sendInvite(anInvite("11"), "org.example.99")).toMatchObject({
      status: 400,
      body: { errcode: "M_INCOMPATIBLE_ROOM_VERSION", room_version: "org.example.99" },
    });
  });

  it.each<[string, JsonObject, string]>([
    ["not an invite", { content: { membership: "join" } }, "M_BAD_JSON"],
    ["not a membership", { type: "m.room.topic" }, "M_BAD_JSON"],
    ["another server's user's", { state_key: CAROL }, "M_BAD_JSON"],
    ["sent for another server", { sender: CAROL }, "M_FORBIDDEN"],
    ["malformed", { depth: -1 }, "M_BAD_JSON"],
  ])("is refused if it is %s", async (_what, changes, errcode) => {
    const event = anInvite("11", changes);
    const answer = await sendInvite(event, "11");
    expect(answer).toMatchObject({ body: { errcode } });
    expect(await loadEvent(ctx.database.pool, event.eventId)).toBeUndefined();
  });

  it("is refused if another server sends it than the sender's own", async () => {
    const { pdu } = anInvite("11");
    const template = { ...pdu, sender: CAROL } as unknown as JsonObject;
    const event = { ...third.complete({ ...template, signatures: {} }, rulesFor("11")), roomId: ROOM };
    expect(await sendInvite(event, "11")).toMatchObject({
      status: 403,
      body: { errcode: "M_FORBIDDEN", error: expect.stringContaining("not a user of them.example") },
    });
  });

  it("is refused if its signature, hash or id is wrong", async () => {
    const event = anInvite("11");
    const unsigned = { ...event, pdu: { ...event.pdu, signatures: {} } };
    expect(await sendInvite(unsigned, "11")).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const changed = { ...event, pdu: { ...event.pdu, content: { membership: "invite", displayname: "Mallory" } } };
    expect(await sendInvite(changed, "11")).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    const renamed = { ...event, eventId: `$${"z".repeat(43)}` as const };
    expect(await sendInvite(renamed, "11")).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
  });

  it("is signed and not stored apart for a room that we are in, unless the user is in it or banned", async () => {
    const roomId = await aRoom(ctx);
    await joined(them, roomId, BOB);
    const dave: UserId = "@dave:us.example";
    const event = anInvite("11", { room_id: roomId, state_key: dave });
    expect(await sendInvite(event, "11")).toMatchObject({ status: 200 });
    expect(await loadEvent(ctx.database.pool, event.eventId)).toBeUndefined();
    expect(await sendInvite(anInvite("11", { room_id: roomId }), "11")).toMatchObject({ status: 403 });
    await state(roomId, "m.room.member", { membership: "ban" }, dave);
    expect(await sendInvite(anInvite("11", { room_id: roomId, state_key: dave }), "11")).toMatchObject({ status: 403 });
  });

  it("is refused where the room's access control list denies its server, or the room has another version", async () => {
    const roomId = await aRoom(ctx);
    const dave: UserId = "@dave:us.example";
    expect(await sendInvite(anInvite("10", { room_id: roomId, state_key: dave }), "10")).toMatchObject({
      status: 400,
      body: { errcode: "M_INVALID_PARAM" },
    });
    await state(roomId, "m.room.server_acl", { allow: ["us.example"] });
    expect(await sendInvite(anInvite("11", { room_id: roomId, state_key: dave }), "11")).toMatchObject({
      status: 403,
      body: { errcode: "M_FORBIDDEN" },
    });
  });
});
