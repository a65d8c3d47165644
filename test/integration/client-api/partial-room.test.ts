import { describe, expect, it } from "vitest";
import { addUnknownMembers } from "../../../src/storage/memberships.ts";
import { openTestDatabase } from "../../support/database.ts";
import { ALICE, BOB, CHARLIE } from "../../support/builders.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";
import { aPartialRoom } from "../../support/partial-room.ts";

const progress = { phase: "fetching", partialEvents: 1, idsLeft: 7, servers: [] };
const api = await startLoopbackClientApi(await openTestDatabase(), {
  fullStateWaitMs: 300,
  resyncProgress: async () => progress,
});
const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;
const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });

let users = 0;
async function aUser(): Promise<TestClient> {
  users += 1;
  return api.register(`user${users}`);
}

const idsOf = (events: readonly Body[]): string[] => events.map((event) => event.event_id);
const membersIn = (events: readonly Body[]): string[] =>
  events
    .filter((event) => event.type === "m.room.member")
    .map((event) => event.state_key)
    .toSorted();

describe("look-ups in a partial room", () => {
  it("answer at once what is not a remote membership", async () => {
    const user = await aUser();
    const { roomId } = await aPartialRoom(api.ctx, user.userId);
    expect(await user.ok("GET", at(roomId, "state/m.room.join_rules"))).toEqual({ join_rule: "public" });
    const own = await user.ok("GET", at(roomId, `state/m.room.member/${key(user.userId)}`));
    expect(own.membership).toBe("join");
    expect((await user.ok("GET", "joined_rooms")).joined_rooms).toEqual([roomId]);
    const { chunk } = await user.ok("GET", at(roomId, "messages"), { query: { dir: "b" } });
    expect(chunk).toHaveLength(1);
  });

  it.each(["members", "joined_members", "state", `state/m.room.member/${key(BOB)}`])(
    "wait for the full state, then say that it is missing: %s",
    async (place) => {
      const user = await aUser();
      const { roomId } = await aPartialRoom(api.ctx, user.userId);
      const { status, body, headers } = await user.call("GET", at(roomId, place));
      expect(status).toBe(503);
      expect(body).toMatchObject({ errcode: "FASTJOIN.PARTIAL_STATE", retry_after_ms: 5000, progress });
      expect(headers.get("retry-after")).toBe("5");
    },
  );

  it("are answered as soon as the resync ends", async () => {
    const user = await aUser();
    const patient = await startLoopbackClientApi(api.ctx.database, { fullStateWaitMs: 20_000 });
    const { roomId, complete } = await aPartialRoom(api.ctx, user.userId);
    const query = { access_token: user.accessToken };
    const waiting = ["members", "joined_members", "state", `state/m.room.member/${key(BOB)}`].map(async (place) =>
      patient.call("GET", at(roomId, place), { query }),
    );
    await complete();
    const [members, joined, state, bob] = await Promise.all(waiting);
    const everybody = [ALICE, BOB, CHARLIE, user.userId].toSorted();
    expect(membersIn(members?.body.chunk)).toEqual(everybody);
    expect(Object.keys(joined?.body.joined).toSorted()).toEqual(everybody);
    expect(membersIn(state?.body)).toEqual(everybody);
    expect(bob?.body).toEqual({ membership: "join" });
  });
});

describe("sync of a partial room", () => {
  it("shows it at once to lazy-loading clients, with the senders' members from their events", async () => {
    const user = await aUser();
    const { next_batch: since } = await user.sync({ filter: LAZY });
    const { roomId, receive, joinEventId } = await aPartialRoom(api.ctx, user.userId);
    const first = await user.sync({ since, filter: LAZY });
    const room = first.rooms.join[roomId];
    expect(idsOf(room.timeline.events)).toEqual([joinEventId]);
    expect(room.state.events.map((event: Body) => event.type)).toContain("m.room.create");
    expect(room.summary).not.toHaveProperty("m.joined_member_count");

    const eventId = await receive(BOB, "hello");
    const second = (await user.sync({ since: first.next_batch, filter: LAZY })).rooms.join[roomId];
    expect(idsOf(second.timeline.events)).toEqual([eventId]);
    expect(membersIn(second.state.events)).toEqual([BOB]);
    const anew = (await user.sync({ filter: LAZY })).rooms.join[roomId];
    expect(membersIn(anew.state.events)).toEqual([BOB]);
  });

  it("names nobody after whom to call it who is not in its state yet", async () => {
    const user = await aUser();
    const { roomId, joinEventId: eventId, complete } = await aPartialRoom(api.ctx, user.userId);
    // As the resync's end does before the room is whole.
    await addUnknownMembers(api.ctx.database.pool, roomId, [{ userId: CHARLIE, eventId }]);
    const { rooms, next_batch: since } = await user.sync({ filter: LAZY });
    expect(rooms.join[roomId].summary).not.toHaveProperty(["m.heroes"]);
    await complete();
    const { summary } = (await user.sync({ since, filter: LAZY })).rooms.join[roomId];
    expect(summary["m.heroes"]).toEqual([ALICE, BOB, CHARLIE]);
  });

  it("has the senders' members from their events in pages of messages and around an event, too", async () => {
    const user = await aUser();
    const { roomId, receive } = await aPartialRoom(api.ctx, user.userId);
    const eventId = await receive(BOB, "hello");
    const filter = JSON.stringify({ lazy_load_members: true });
    const page = await user.ok("GET", at(roomId, "messages"), { query: { dir: "b", filter } });
    expect(membersIn(page.state)).toContain(BOB);
    const around = await user.ok("GET", at(roomId, `context/${key(eventId)}`), { query: { filter } });
    expect(membersIn(around.state)).toContain(BOB);
  });

  it("tells lazy-loading clients of the end of the resync, with the number of members", async () => {
    const user = await aUser();
    const { roomId, complete } = await aPartialRoom(api.ctx, user.userId);
    const { next_batch: since } = await user.sync({ filter: LAZY });
    const poll = user.sync({ since, filter: LAZY, timeout: "20000" });
    await complete();
    const room = (await poll).rooms.join[roomId];
    expect(room.summary["m.joined_member_count"]).toBe(4);
    expect(room.timeline).toMatchObject({ events: [], limited: false });
  });

  it("leaves it out for other clients until the resync ends, which wakes them", async () => {
    const user = await aUser();
    const { next_batch: start } = await user.sync();
    const { roomId, receive, complete } = await aPartialRoom(api.ctx, user.userId);
    const eventId = await receive(BOB, "hello");
    expect((await user.sync()).rooms).toBeUndefined();
    const { rooms, next_batch: since } = await user.sync({ since: start });
    expect(rooms).toBeUndefined();
    const poll = user.sync({ since, timeout: "20000" });
    await complete();
    const room = (await poll).rooms.join[roomId];
    expect(idsOf(room.timeline.events)).toContain(eventId);
    const members = membersIn([...room.state.events, ...room.timeline.events]);
    expect(members).toEqual([ALICE, BOB, CHARLIE, user.userId].toSorted());
  });

  it("takes back nothing but shows no longer what the full state rejects, and shows what it restores", async () => {
    const user = await aUser();
    const { roomId, receive, complete } = await aPartialRoom(api.ctx, user.userId);
    const wrong = await receive(BOB, "not allowed");
    const right = await receive(CHARLIE, "allowed after all");
    await api.ctx.database.pool.query("UPDATE events SET rejection = 'test' WHERE event_id = $1", [right]);
    const { next_batch: since, rooms } = await user.sync({ filter: LAZY });
    expect(idsOf(rooms.join[roomId].timeline.events)).toContain(wrong);
    expect(idsOf(rooms.join[roomId].timeline.events)).not.toContain(right);
    await complete([
      { eventId: wrong, rejection: "membership" },
      { eventId: right, rejection: null },
    ]);
    const next = (await user.sync({ since, filter: LAZY })).rooms.join[roomId];
    expect(idsOf(next.timeline.events)).toEqual([right]);
    const filtered = async (types: readonly string[]): Promise<Body> => {
      const filter = JSON.stringify({ room: { state: { lazy_load_members: true }, timeline: { types } } });
      return (await user.sync({ since, filter })).rooms.join[roomId].timeline.events;
    };
    expect(idsOf(await filtered(["m.room.message"]))).toEqual([right]);
    expect(await filtered(["m.room.topic"])).toEqual([]);
    expect((await user.call("GET", at(roomId, `event/${key(wrong)}`))).status).toBe(404);
    expect(await user.ok("GET", at(roomId, `event/${key(right)}`))).toMatchObject({ sender: CHARLIE });
    const anew = idsOf((await user.sync()).rooms.join[roomId].timeline.events);
    expect(anew).toContain(right);
    expect(anew).not.toContain(wrong);
  });
});
