import { describe, expect, it } from "vitest";
import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { openClientScene, remoteUsers } from "../../support/client-scene.ts";
import { startLoopbackClientApi, type Body, type TestClient } from "../../support/loopback-client.ts";

const progress = { phase: "fetching", partialEvents: 3, idsLeft: 40, servers: [] };
const scene = await openClientScene({
  fronts: 2,
  client: { fullStateWaitMs: 300, resyncProgress: async () => progress },
});
const { resident, sidecar, database, enter, aUser } = scene;
const [front, other] = resident.fronts as [(typeof resident.fronts)[0], (typeof resident.fronts)[0]];
const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;

/** By `type` or `type/state key`, the contents of a room's state. */
async function stateOf(client: TestClient, roomId: string): Promise<ReadonlyMap<string, Body>> {
  const events: Body[] = await client.ok("GET", at(roomId, "state"));
  return new Map(
    events.map((event) => [event.state_key === "" ? event.type : `${event.type}/${event.state_key}`, event.content]),
  );
}

async function upgrade(client: TestClient, roomId: string, body: Body = { new_version: "11" }): Promise<RoomId> {
  return (await client.ok("POST", at(roomId, "upgrade"), { body })).replacement_room;
}

describe("an upgrade of a room", () => {
  it("makes a new room with the old one's settings, and closes the old one", async () => {
    const client = await aUser();
    const roomId = await client.createRoom("9", {
      preset: "public_chat",
      name: "Tea",
      topic: "Green",
      room_alias_name: "tea",
      creation_content: { type: "org.example.space", "m.federate": true },
      initial_state: [{ type: "m.room.encryption", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    const banned: UserId = `@banned:${front.serverName}`;
    await client.ok("POST", at(roomId, "ban"), { body: { user_id: banned, reason: "spam" } });
    const before = await stateOf(client, roomId);

    const replacement = await upgrade(client, roomId);

    const after = await stateOf(client, replacement);
    for (const type of ["name", "topic", "encryption", "join_rules", "history_visibility", "guest_access"]) {
      expect([type, after.get(`m.room.${type}`)]).toEqual([type, before.get(`m.room.${type}`)]);
    }
    expect(after.get("m.room.power_levels")).toEqual(before.get("m.room.power_levels"));
    expect(after.get("m.room.create")).toMatchObject({
      type: "org.example.space",
      "m.federate": true,
      room_version: "11",
      predecessor: { room_id: roomId, event_id: expect.stringMatching(/^\$/) },
    });
    expect(after.get(`m.room.member/${banned}`)).toEqual({ membership: "ban", reason: "spam" });
    const closed = await stateOf(client, roomId);
    expect(closed.get("m.room.tombstone")).toMatchObject({ replacement_room: replacement });
    expect(closed.get("m.room.power_levels")).toEqual({
      ...before.get("m.room.power_levels"),
      events_default: 50,
      invite: 50,
    });
    const alias = `#tea:${sidecar.serverName}`;
    expect((await client.ok("GET", `directory/room/${key(alias)}`)).room_id).toBe(replacement);
    expect(after.get("m.room.canonical_alias")).toEqual({ alias });
    expect(closed.get("m.room.canonical_alias")).toEqual({});
  });

  it("to version 12 names its further creators, and no event of the old room", async () => {
    const [client, friend] = [await aUser(), await aUser()];
    const users = { [client.userId]: 100, [friend.userId]: 100 };
    const roomId = await client.createRoom("11", { power_level_content_override: { users } });
    const body = { new_version: "12", additional_creators: [friend.userId] };
    const state = await stateOf(client, await upgrade(client, roomId, body));
    expect(state.get("m.room.create").predecessor).toEqual({ room_id: roomId });
    expect(state.get("m.room.create").additional_creators).toEqual([friend.userId]);
    expect(state.get("m.room.power_levels").users).toEqual({});
  });

  it("of a space takes its children over", async () => {
    const client = await aUser();
    const roomId = await client.createRoom("11", { creation_content: { type: "m.space" } });
    const child = await client.createRoom();
    const body = { via: [sidecar.serverName] };
    await client.ok("PUT", at(roomId, `state/m.space.child/${key(child)}`), { body });
    const state = await stateOf(client, await upgrade(client, roomId));
    expect(state.get(`m.space.child/${child}`)).toEqual(body);
  });

  it("is refused without the power for a tombstone, to an unknown version, and from outside", async () => {
    const { room, client } = await enter();
    const body = { new_version: "11" };
    const forbidden = { status: 403, body: { errcode: "M_FORBIDDEN" } };
    expect(await client.call("POST", at(room.roomId, "upgrade"), { body })).toMatchObject(forbidden);
    expect(await (await aUser()).call("POST", at(room.roomId, "upgrade"), { body })).toMatchObject(forbidden);
    const unknown = await client.call("POST", at(room.roomId, "upgrade"), { body: { new_version: "soon" } });
    expect(unknown).toMatchObject({ status: 400, body: { errcode: "M_UNSUPPORTED_ROOM_VERSION" } });
  });
});

describe("an upgrade of a partially joined room", () => {
  it("waits for the bans, and says so where they do not come in time", async () => {
    const { room, client } = await enter({ power: 100 });
    const answer = await client.call("POST", at(room.roomId, "upgrade"), { body: { new_version: "12" } });
    expect(answer.status).toBe(503);
    expect(answer.body).toMatchObject({ errcode: "FASTJOIN.PARTIAL_STATE", retry_after_ms: 5000, progress });
    expect((await client.ok("GET", "joined_rooms")).joined_rooms).toEqual([room.roomId]);
    expect(resident.fullState(room).has(stateKeyOf("m.room.tombstone", ""))).toBe(false);
  });

  it("goes on as soon as the state is full, with every ban, and its tombstone reaches the other servers", async () => {
    const { room, client, complete } = await enter({ power: 100 });
    const patient = await startLoopbackClientApi(database, { ...sidecar.ctx, fullStateWaitMs: 20_000 });
    const query = { access_token: client.accessToken };
    const waiting = patient.call("POST", at(room.roomId, "upgrade"), { body: { new_version: "12" }, query });
    await complete();
    const { body } = await waiting;
    const state = await stateOf(client, body.replacement_room);
    const bans = remoteUsers(resident, room, "ban");
    expect(bans.length).toBeGreaterThan(0);
    for (const user of bans) expect(state.get(`m.room.member/${user}`)).toEqual({ membership: "ban" });
    expect(state.get("m.room.topic")).toEqual({ topic: expect.any(String) });
    const ours = await sidecar.currentState(room.roomId);
    expect(ours.has(stateKeyOf("m.room.tombstone", ""))).toBe(true);
    await expect.poll(() => resident.fullState(room)).toEqual(ours);
  });
});

describe("following a tombstone", () => {
  it("leads into the new room by the servers of the old one, also while that is partial", async () => {
    const old = await enter();
    // The room id of version 12 names no server.
    const replacement = scene.hostRoom({ version: "12" });
    await resident.sendState(old.room, {
      type: "m.room.tombstone",
      content: { body: "moved", replacement_room: replacement.roomId },
    });
    await old.client.ok("POST", `join/${key(replacement.roomId)}`);
    expect(resident.membership(replacement, old.client.userId)).toBe("join");
    const joined = await partialRoom(database.pool, replacement.roomId);
    expect([front.serverName, other.serverName]).toContain(joined?.joinedVia);
    expect(await partialRoom(database.pool, old.room.roomId)).toBeDefined();
  });

  it("is open to nobody who is not in the old room", async () => {
    const replacement = scene.hostRoom({ version: "12" });
    const answer = await (await aUser()).call("POST", `join/${key(replacement.roomId)}`);
    expect(answer).toMatchObject({ status: 502, body: { errcode: "M_UNKNOWN" } });
  });
});
