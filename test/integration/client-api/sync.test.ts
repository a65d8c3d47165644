import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { transaction } from "../../../src/storage/database.ts";
import { lockRoom, setCurrentSnapshot } from "../../../src/storage/rooms.ts";
import { storeSnapshot } from "../../../src/storage/state-snapshots.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const api = await startLoopbackClientApi(await openTestDatabase());
const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;

let users = 0;
async function aUser(): Promise<TestClient> {
  users += 1;
  return api.register(`user${users}`);
}

const bodies = (room: Body): string[] =>
  room.timeline.events
    .filter((event: Body) => event.type === "m.room.message")
    .map((event: Body) => event.content.body);
const typesOf = (events: readonly Body[]): string[] => events.map((event) => event.type).toSorted();
const limited = (limit: number): string => JSON.stringify({ room: { timeline: { limit } } });

describe("sync", () => {
  it("begins with all joined rooms: the end of the timeline, and the state before it", async () => {
    const alice = await aUser();
    const roomId = await alice.createRoom("11", { name: "Tea" });
    for (const text of ["one", "two", "three"]) await alice.send(roomId, text);
    const { rooms, next_batch: next } = await alice.sync({ filter: limited(2) });
    const room = rooms.join[roomId];
    expect(Object.keys(rooms)).toEqual(["join"]);
    expect(bodies(room)).toEqual(["two", "three"]);
    expect(room.timeline.limited).toBe(true);
    expect(typesOf(room.state.events)).toEqual([
      "m.room.create",
      "m.room.guest_access",
      "m.room.history_visibility",
      "m.room.join_rules",
      "m.room.member",
      "m.room.name",
      "m.room.power_levels",
    ]);
    expect(room.timeline.events[0]).not.toHaveProperty("room_id");
    expect(next).toMatch(/^s\d+$/);
    const query = { dir: "b", from: room.timeline.prev_batch, limit: "1" };
    const { chunk } = await alice.ok("GET", at(roomId, "messages"), { query });
    expect(chunk[0].content.body).toBe("one");
  });

  it("goes on where it left off, and tells nothing twice", async () => {
    const alice = await aUser();
    const [quiet, busy] = [await alice.createRoom(), await alice.createRoom()];
    const first = await alice.sync();
    expect(Object.keys(first.rooms.join)).toHaveLength(2);
    expect((await alice.sync({ since: first.next_batch })).rooms).toBeUndefined();
    await alice.send(busy, "news");
    const second = await alice.sync({ since: first.next_batch });
    expect(Object.keys(second.rooms.join)).toEqual([busy]);
    expect(bodies(second.rooms.join[busy])).toEqual(["news"]);
    expect(second.rooms.join[busy].state.events).toEqual([]);
    expect(second.rooms.join[busy].timeline.limited).toBe(false);
    expect(quiet in second.rooms.join).toBe(false);
    const full = await alice.sync({ since: second.next_batch, full_state: "true" });
    expect(typesOf(full.rooms.join[quiet].state.events)).toContain("m.room.create");
    expect(full.rooms.join[quiet].timeline.events).toEqual([]);
  });

  it("leaves a gap where too much has happened, and tells what state changed in it", async () => {
    const alice = await aUser();
    const roomId = await alice.createRoom();
    const { next_batch: since } = await alice.sync();
    await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: "New" } });
    for (const text of ["one", "two", "three"]) await alice.send(roomId, text);
    const room = (await alice.sync({ since, filter: limited(2) })).rooms.join[roomId];
    expect(bodies(room)).toEqual(["two", "three"]);
    expect(room.timeline.limited).toBe(true);
    expect(typesOf(room.state.events)).toEqual(["m.room.name"]);
  });

  it("wakes a long poll as soon as something happens", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    await bob.ok("POST", at(roomId, "join"));
    const { next_batch: since } = await bob.sync();
    const poll = bob.sync({ since, timeout: "20000" });
    await new Promise((resolve) => {
      setTimeout(resolve, 100);
    });
    // Another user's room is no news.
    await alice.createRoom();
    await alice.send(roomId, "wake up");
    expect(bodies((await poll).rooms.join[roomId])).toEqual(["wake up"]);
  });

  it("answers a long poll without news when its time is over", async () => {
    const alice = await aUser();
    await alice.createRoom();
    const { next_batch: since } = await alice.sync();
    const { rooms, next_batch: next } = await alice.sync({ since, timeout: "300" });
    expect(rooms).toBeUndefined();
    expect(next).toBe(since);
  });

  it("tells of invitations with the room's stripped state, of joins with the whole room, and of leaves", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const { next_batch: before } = await bob.sync();
    const roomId = await alice.createRoom("11", { name: "Tea", invite: [bob.userId], is_direct: true });
    const invited = await bob.sync({ since: before });
    const stripped = invited.rooms.invite[roomId].invite_state.events;
    expect(typesOf(stripped)).toEqual(["m.room.create", "m.room.join_rules", "m.room.member", "m.room.name"]);
    const own = stripped.find((event: Body) => event.state_key === bob.userId);
    expect(own).toMatchObject({ sender: alice.userId, content: { membership: "invite", is_direct: true } });
    expect((await bob.sync()).rooms.invite).toHaveProperty([roomId]);

    await bob.ok("POST", at(roomId, "join"));
    const joined = await bob.sync({ since: invited.next_batch, filter: limited(1) });
    expect(typesOf(joined.rooms.join[roomId].state.events)).toContain("m.room.create");
    expect(joined.rooms.join[roomId].timeline.events[0]).toMatchObject({ state_key: bob.userId });
    expect(joined.rooms.invite).toBeUndefined();

    await alice.send(roomId, "last words");
    await alice.ok("POST", at(roomId, "kick"), { body: { user_id: bob.userId } });
    await alice.send(roomId, "behind his back");
    const left = await bob.sync({ since: joined.next_batch });
    expect(bodies(left.rooms.leave[roomId])).toEqual(["last words"]);
    expect(left.rooms.leave[roomId].timeline.events.at(-1)).toMatchObject({ content: { membership: "leave" } });
    expect(left.rooms.join).toBeUndefined();
    expect((await bob.sync({ since: left.next_batch })).rooms).toBeUndefined();
    expect((await bob.sync()).rooms).toBeUndefined();
    const withLeft = await bob.sync({ filter: JSON.stringify({ room: { include_leave: true } }) });
    expect(withLeft.rooms.leave).toHaveProperty([roomId]);
  });

  it("tells of a declined invitation as of a room that was left", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    const { next_batch: since } = await bob.sync();
    await bob.ok("POST", at(roomId, "leave"));
    const { rooms } = await bob.sync({ since });
    expect(rooms.leave[roomId].timeline.events).toHaveLength(1);
    expect(rooms.leave[roomId].timeline.events[0].content.membership).toBe("leave");
  });

  it("gives transaction ids to the device that sent, and says what a state event replaced", async () => {
    const alice = await aUser();
    const roomId = await alice.createRoom("11", { name: "Old" });
    const { next_batch: since } = await alice.sync();
    await alice.ok("PUT", at(roomId, "send/m.room.message/mine%2F1"), { body: { msgtype: "m.text", body: "hi" } });
    await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: "New" } });
    const [message, name] = (await alice.sync({ since })).rooms.join[roomId].timeline.events;
    expect(message.unsigned.transaction_id).toBe("mine/1");
    expect(message.unsigned.age).toBeGreaterThanOrEqual(0);
    expect(name.unsigned.prev_content).toEqual({ name: "Old" });
    expect(name.unsigned.replaces_state).toMatch(/^\$/);
    const phone = await api.login(`user${users}`);
    const [same] = (await phone.sync({ since })).rooms.join[roomId].timeline.events;
    expect(same.unsigned).not.toHaveProperty("transaction_id");
  });

  it("filters rooms, types and members", async () => {
    const [alice, bob] = [await aUser(), await aUser()];
    const [one, two] = [await alice.createRoom("11", { preset: "public_chat" }), await alice.createRoom()];
    await bob.ok("POST", at(one, "join"));
    await alice.send(one, "hi");
    const filter = {
      room: {
        not_rooms: [two],
        timeline: { types: ["m.room.message"], limit: 1 },
        state: { lazy_load_members: true, not_types: ["m.room.power_levels"] },
      },
    };
    const { filter_id: id } = await alice.ok("POST", `user/${key(alice.userId)}/filter`, { body: filter });
    const { rooms } = await alice.sync({ filter: id });
    expect(Object.keys(rooms.join)).toEqual([one]);
    const { timeline, state, summary } = rooms.join[one];
    expect(typesOf(timeline.events)).toEqual(["m.room.message"]);
    const members = state.events.filter((event: Body) => event.type === "m.room.member");
    expect(members.map((event: Body) => event.state_key).toSorted()).toEqual([alice.userId, bob.userId].toSorted());
    expect(typesOf(state.events)).not.toContain("m.room.power_levels");
    expect(summary).toEqual({ "m.heroes": [bob.userId], "m.joined_member_count": 2, "m.invited_member_count": 0 });
  });

  it("gives the state behind the timeline to clients that want it so", async () => {
    const alice = await aUser();
    const roomId = await alice.createRoom("11", { name: "Old" });
    const { next_batch: since } = await alice.sync();
    await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: "New" } });
    const nameIn = (room: Body): Body => room.state_after.events.find((event: Body) => event.type === "m.room.name");
    for (const query of [{ filter: limited(1) }, { since }] as const) {
      const room = (await alice.sync({ ...query, use_state_after: "true" })).rooms.join[roomId];
      expect(room).not.toHaveProperty("state");
      expect(typesOf(room.timeline.events)).toEqual(["m.room.name"]);
      expect(nameIn(room).content).toEqual({ name: "New" });
    }
    const before = (await alice.sync({ filter: limited(1) })).rooms.join[roomId].state.events;
    expect(before.find((event: Body) => event.type === "m.room.name").content).toEqual({ name: "Old" });
  });

  it("corrects what the timeline would make of the state where state resolution has decided otherwise", async () => {
    const alice = await aUser();
    const roomId = await alice.createRoom();
    const name = async (text: string): Promise<EventId> =>
      (await alice.ok("PUT", at(roomId, "state/m.room.name"), { body: { name: text } })).event_id;
    const winner = await name("winner");
    await alice.send(roomId, "between");
    await name("loser");
    await transaction(api.ctx.database, async (tx) => {
      const room = await lockRoom(tx, roomId);
      const changes = new Map([[stateKeyOf("m.room.name", ""), winner]]);
      const parentId = room?.currentSnapshotId ?? null;
      await setCurrentSnapshot(tx, roomId, await storeSnapshot(tx, roomId, { parentId, changes }));
    });
    const names = (events: readonly Body[]): Body[] => events.filter((event) => event.type === "m.room.name");
    const after = (await alice.sync({ use_state_after: "true" })).rooms.join[roomId];
    expect(names(after.state_after.events).map((event) => event.event_id)).toEqual([winner]);
    // The timeline begins with the create event, before which there is no state.
    const whole = (await alice.sync()).rooms.join[roomId];
    expect(whole.state.events.map((event: Body) => event.event_id)).toEqual([winner]);
  });

  it("refuses a token or a filter of others", async () => {
    const alice = await aUser();
    const since = await alice.call("GET", "sync", { query: { since: "t12" } });
    expect(since).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
    const filter = await alice.call("GET", "sync", { query: { filter: '{"room":5}' } });
    expect(filter).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });
});
