import { describe, expect, it } from "vitest";
import type { EventId, RoomAlias, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import { partialRoom } from "../../src/storage/partial-state.ts";
import { stateMapOf, type StateEntry } from "../support/http-client.ts";
import type { TestClient } from "../support/loopback-client.ts";
import { eventually } from "../support/sidecar-process.ts";
import { openInProcessSynapseScene } from "../support/synapse/in-process-scene.ts";
import {
  callAs,
  changeMember,
  createSynapseRoom,
  joinOnSynapse,
  readMessages,
  readState,
  registerUser,
  sendMessage,
  setState,
  type NewRoom,
} from "../support/synapse/synapse-client.ts";

const { synapse, sidecar, api, complete } = await openInProcessSynapseScene();
const { pool } = sidecar.ctx.database;
const admin = await registerUser(synapse, "admin");
const [quiet, talker, guest] = [
  await registerUser(synapse, "quiet"),
  await registerUser(synapse, "talker"),
  await registerUser(synapse, "guest"),
];
const [alice, bob] = [await api.register("alice"), await api.register("bob")];
const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;
const via = { via: synapse.serverName };

/** The content that the admin's Synapse holds under a key of the room's state. */
async function contentOnSynapse(roomId: RoomId, type: string, stateKey = ""): Promise<JsonObject | undefined> {
  const state = await readState(admin, roomId);
  const content = state.find((event) => event["type"] === type && event["state_key"] === stateKey)?.["content"];
  return content as JsonObject | undefined;
}

async function untilMembership(roomId: RoomId, userId: UserId, membership: string): Promise<void> {
  await eventually(
    async () => {
      const content = await contentOnSynapse(roomId, "m.room.member", userId);
      return content?.["membership"] === membership ? true : undefined;
    },
    {
      withinMs: 60_000,
      about: () => `${userId} does not become ${membership} on Synapse`,
    },
  );
}

async function untilSeen(roomId: RoomId, eventId: EventId): Promise<void> {
  await eventually(
    async () => ((await readMessages(admin, roomId)).some((event) => event["event_id"] === eventId) ? true : undefined),
    { withinMs: 60_000, about: () => `Synapse does not see ${eventId}` },
  );
}

/** A room of the admin's, its members on Synapse, alice in it with power; we know it in part. */
async function partialRoomOf(version: NewRoom["version"] = "11", options: JsonObject = {}): Promise<RoomId> {
  const roomId = await createSynapseRoom(admin, { version, options: { name: "Partial", ...options } });
  for (const user of [quiet, talker]) await joinOnSynapse(user, roomId);
  const creator = version === "12" ? {} : { [admin.userId]: 100 };
  const content = { users: { ...creator, [alice.userId]: 50 }, events: { "m.room.topic": 50 } };
  await setState(admin, roomId, { type: "m.room.power_levels", content });
  await alice.ok("POST", `join/${key(roomId)}`, { query: via });
  expect(await partialRoom(pool, roomId)).toBeDefined();
  return roomId;
}

/** After the resync both servers have one state. */
async function agree(roomId: RoomId): Promise<void> {
  await complete(roomId);
  await eventually(
    async () => {
      const theirs = stateMapOf((await readState(admin, roomId)) as unknown as StateEntry[]);
      const ours = await sidecar.currentState(roomId);
      return JSON.stringify([...ours].toSorted()) === JSON.stringify([...theirs].toSorted()) ? true : undefined;
    },
    { withinMs: 60_000, about: () => `the states of ${roomId} differ` },
  );
}

async function knock(client: TestClient, roomId: RoomId): Promise<void> {
  await client.ok("POST", `knock/${key(roomId)}`, { query: via, body: { reason: "please" } });
}

describe("what we make from partial state is accepted by a real Synapse", () => {
  it.each(["1", "10", "12"] as const)("in a room of version %s", async (version) => {
    const roomId = await partialRoomOf(version);
    const said = await alice.send(roomId, "hello");
    await untilSeen(roomId, said);
    const body = { topic: "from partial state" };
    const { event_id: topic } = await alice.ok("PUT", at(roomId, "state/m.room.topic"), { body });
    await untilSeen(roomId, topic);
    const rude = await sendMessage(talker, roomId, "rude");
    await eventually(
      async () => (await alice.call("GET", at(roomId, `event/${key(rude)}`))).status === 200 || undefined,
    );
    const { event_id: redaction } = await alice.ok("PUT", at(roomId, `redact/${key(rude)}/${version}`), { body: {} });
    await untilSeen(roomId, redaction);
    await alice.ok("POST", at(roomId, "invite"), { body: { user_id: guest.userId } });
    await untilMembership(roomId, guest.userId, "invite");
    const displayname = `Alice in ${version}`;
    await alice.ok("PUT", `profile/${key(alice.userId)}/displayname`, { body: { displayname } });
    await eventually(async () => {
      const member = await contentOnSynapse(roomId, "m.room.member", alice.userId);
      return member?.["displayname"] === displayname ? true : undefined;
    });

    // One whose membership their message has named; and one of whom we know nothing, so that it waits.
    await alice.ok("POST", at(roomId, "ban"), { body: { user_id: talker.userId, reason: "rude" } });
    await untilMembership(roomId, talker.userId, "ban");
    const kick = { body: { user_id: quiet.userId } };
    const early = await alice.call("POST", at(roomId, "kick"), kick);
    expect(early).toMatchObject({ status: 503, body: { errcode: "FASTJOIN.PARTIAL_STATE" } });
    await agree(roomId);
    await alice.ok("POST", at(roomId, "kick"), kick);
    await untilMembership(roomId, quiet.userId, "leave");
  });

  it("bans one of whom we know nothing", async () => {
    const roomId = await partialRoomOf();
    await alice.ok("POST", at(roomId, "ban"), { body: { user_id: quiet.userId } });
    await untilMembership(roomId, quiet.userId, "ban");
    await agree(roomId);
  });

  it("lifts a ban that was before our join as soon as the state is full", async () => {
    const roomId = await createSynapseRoom(admin, { version: "11" });
    await joinOnSynapse(quiet, roomId);
    await changeMember(admin, roomId, "ban", quiet.userId);
    const content = { users: { [admin.userId]: 100, [alice.userId]: 50 } };
    await setState(admin, roomId, { type: "m.room.power_levels", content });
    await alice.ok("POST", `join/${key(roomId)}`, { query: via });
    const unban = async () => alice.call("POST", at(roomId, "unban"), { body: { user_id: quiet.userId } });
    expect(await unban()).toMatchObject({ status: 503, body: { errcode: "FASTJOIN.PARTIAL_STATE" } });
    await complete(roomId);
    expect((await unban()).status).toBe(200);
    await untilMembership(roomId, quiet.userId, "leave");
  });
});

describe("a second join beside a real Synapse", () => {
  it("is refused to the banned and given to others, while the state is partial", async () => {
    const roomId = await createSynapseRoom(admin, { version: "11" });
    await changeMember(admin, roomId, "ban", bob.userId);
    await alice.ok("POST", `join/${key(roomId)}`, { query: via });
    const before = await partialRoom(pool, roomId);
    const refused = await bob.call("POST", `join/${key(roomId)}`, { query: via });
    expect(refused).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    await changeMember(admin, roomId, "unban", bob.userId);
    await bob.ok("POST", `join/${key(roomId)}`, { query: via });
    await untilMembership(roomId, bob.userId, "join");
    expect(await partialRoom(pool, roomId)).toEqual(before);
    await agree(roomId);
  });
});

describe("a knock at a real Synapse", () => {
  it.each(["knock", "knock_restricted"])("is taken, taken back, made again, and let in (%s)", async (joinRule) => {
    const initial_state = [{ type: "m.room.join_rules", state_key: "", content: { join_rule: joinRule } }];
    const roomId = await createSynapseRoom(admin, { version: "10", options: { name: "Club", initial_state } });
    await knock(alice, roomId);
    await untilMembership(roomId, alice.userId, "knock");
    const { events } = (await alice.sync()).rooms.knock[roomId].knock_state;
    expect(events).toContainEqual(expect.objectContaining({ type: "m.room.name", content: { name: "Club" } }));
    await alice.ok("POST", at(roomId, "leave"));
    await untilMembership(roomId, alice.userId, "leave");
    await knock(alice, roomId);
    await changeMember(admin, roomId, "invite", alice.userId);
    await eventually(async () => ((await alice.sync()).rooms.invite?.[roomId] === undefined ? undefined : true));
    await alice.ok("POST", `join/${key(roomId)}`);
    await untilMembership(roomId, alice.userId, "join");

    // Another of our users knocks while we know the room in part.
    await knock(bob, roomId);
    await untilMembership(roomId, bob.userId, "knock");
    expect((await bob.sync()).rooms.knock).toHaveProperty([roomId]);
    await agree(roomId);
  });

  it("is refused where nobody may knock", async () => {
    const roomId = await createSynapseRoom(admin, { version: "11", preset: "private_chat" });
    const answer = await alice.call("POST", `knock/${key(roomId)}`, { query: via });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });
});

describe("a restricted room of a real Synapse", () => {
  it("is entered on the word of its user by who is in the allowed room, and by nobody else", async () => {
    const lobby = await createSynapseRoom(admin, { version: "11" });
    const content = { join_rule: "restricted", allow: [{ type: "m.room_membership", room_id: lobby }] };
    const initial_state = [{ type: "m.room.join_rules", state_key: "", content }];
    const roomId = await createSynapseRoom(admin, { version: "11", options: { initial_state } });
    const refused = await alice.call("POST", `join/${key(roomId)}`, { query: via });
    expect(refused).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    await alice.ok("POST", `join/${key(lobby)}`, { query: via });
    await alice.ok("POST", `join/${key(roomId)}`, { query: via });
    await untilMembership(roomId, alice.userId, "join");
    const member = await contentOnSynapse(roomId, "m.room.member", alice.userId);
    expect(member).toMatchObject({ join_authorised_via_users_server: admin.userId });
    await agree(roomId);
  });
});

describe("an alias beside a real Synapse", () => {
  it("of Synapse's leads us in; one of ours, of a partial room, is resolved by Synapse", async () => {
    const name = "lounge";
    const roomId = await partialRoomOf("11", { room_alias_name: name });
    const theirs: RoomAlias = `#${name}:${synapse.serverName}`;
    expect(await bob.ok("POST", `join/${key(theirs)}`)).toEqual({ room_id: roomId });
    const ours: RoomAlias = `#salon:${sidecar.serverName}`;
    await alice.ok("PUT", `directory/room/${key(ours)}`, { body: { room_id: roomId } });
    const found = await callAs(guest, "GET", `/directory/room/${key(ours)}`);
    expect(found["room_id"]).toBe(roomId);
    expect(found["servers"]).toContain(synapse.serverName);
    expect(await joinOnSynapse(guest, ours)).toBe(roomId);
    const body = { alias: ours, alt_aliases: [theirs] };
    const { event_id: eventId } = await alice.ok("PUT", at(roomId, "state/m.room.canonical_alias"), { body });
    await untilSeen(roomId, eventId);
    await alice.ok("DELETE", `directory/room/${key(ours)}`);
    await eventually(async () => {
      const canonical = await contentOnSynapse(roomId, "m.room.canonical_alias");
      return JSON.stringify(canonical) === JSON.stringify({ alt_aliases: [theirs] }) ? true : undefined;
    });
    await agree(roomId);
  });
});

describe("a room upgrade beside a real Synapse", () => {
  it("of ours is followed by a user of Synapse", async () => {
    const roomId = await createSynapseRoom(admin, { version: "10", options: { name: "Old" } });
    await changeMember(admin, roomId, "ban", guest.userId);
    const content = { users: { [admin.userId]: 100, [alice.userId]: 100 } };
    await setState(admin, roomId, { type: "m.room.power_levels", content });
    await alice.ok("POST", `join/${key(roomId)}`, { query: via });
    const upgrade = async () => alice.call("POST", at(roomId, "upgrade"), { body: { new_version: "12" } });
    expect(await upgrade()).toMatchObject({ status: 503, body: { errcode: "FASTJOIN.PARTIAL_STATE" } });
    await complete(roomId);
    const { replacement_room: replacement } = (await upgrade()).body;
    const tombstone = await eventually(async () => await contentOnSynapse(roomId, "m.room.tombstone"));
    expect(tombstone).toMatchObject({ replacement_room: replacement });
    const open = { join_rule: "public" };
    await alice.ok("PUT", at(replacement, "state/m.room.join_rules"), { body: open });
    await joinOnSynapse(quiet, replacement, [sidecar.serverName]);
    await expect(joinOnSynapse(guest, replacement, [sidecar.serverName])).rejects.toThrow("M_FORBIDDEN");
  });

  it("of Synapse's is followed by our user, who names no server", async () => {
    const roomId = await partialRoomOf("11");
    const path = `/rooms/${key(roomId)}/upgrade`;
    const upgraded = await callAs(admin, "POST", path, { new_version: "12" });
    const replacement = upgraded["replacement_room"] as RoomId;
    await eventually(async () => {
      const tombstone = await alice.call("GET", at(roomId, "state/m.room.tombstone"));
      return tombstone.status === 200 ? true : undefined;
    });
    await alice.ok("POST", `join/${key(replacement)}`);
    await untilMembership(replacement, alice.userId, "join");
  });
});
