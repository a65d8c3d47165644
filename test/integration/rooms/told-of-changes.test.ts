import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { resyncEventChanges } from "../../../src/storage/resync-event-changes.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi, type Body, type TestClient } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const api = await startLoopbackClientApi(database, sidecar.ctx);

const MALLORY: UserId = "@mallory:server-001.rooms.test";
const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });
const key = encodeURIComponent;

let rooms = 0;
let room: HostedRoom;
let joinEventId: EventId;
let stale: readonly EventId[];
let alice: TestClient;

/** A room from which a moderator was banned before we joined: with members omitted, we can't see the ban. */
beforeEach(async () => {
  rooms += 1;
  room = resident.hostRoom({ members: 230 + rooms });
  const quiet = { push: false };
  const { eventId: malloryJoined } = await resident.join(room, MALLORY, quiet);
  const content = { users: { [resident.founder]: 100, [MALLORY]: 50 } };
  const { eventId: levels } = await resident.sendState(room, { type: "m.room.power_levels", content }, quiet);
  stale = [resident.fullState(room).get(stateKeyOf("m.room.create", "")) as EventId, levels, malloryJoined];
  await resident.ban(room, MALLORY, quiet);
  alice = await api.register(`alice${rooms}`);
  await alice.ok("POST", `join/${key(room.roomId)}`, { body: {}, query: { via: resident.serverName } });
  const joined = sidecar.wanted.findLast(({ roomId }) => roomId === room.roomId);
  joinEventId = joined?.joinEventId as EventId;
});

/** By one whose ban we don't see. */
async function wrongState(type: string, content: Body): Promise<EventId> {
  const sent = await resident.send(
    room,
    { sender: MALLORY, type, stateKey: "", content },
    { authEvents: stale, evenIfRejected: true },
  );
  return sent.eventId;
}

async function roomIn(since: string): Promise<Body> {
  return (await alice.sync({ since, filter: LAZY })).rooms?.join?.[room.roomId];
}

describe("a state event that the full state rejects", () => {
  it("is told to a client as the event that stands in its place", async () => {
    const { eventId: topic } = await resident.sendState(room, { type: "m.room.topic", content: { topic: "true" } });
    const wrong = await wrongState("m.room.topic", { topic: "false" });
    const { next_batch: since } = await alice.sync({ filter: LAZY });
    expect((await alice.ok("GET", `rooms/${key(room.roomId)}/state/m.room.topic`)).topic).toBe("false");

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    const { state } = await roomIn(since);
    expect(state.events.map((event: Body) => event.event_id)).toContain(topic);
    expect(state.events.map((event: Body) => event.event_id)).not.toContain(wrong);
  });

  it("is told to a client as gone where nothing stands in its place", async () => {
    const wrong = await wrongState("org.example.note", { text: "false" });
    const { next_batch: since } = await alice.sync({ filter: LAZY });

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    const { state } = await roomIn(since);
    const note = state.events.find((event: Body) => event.type === "org.example.note");
    expect(note).toMatchObject({
      event_id: wrong,
      state_key: "",
      content: {},
      unsigned: { "org.fastjoin.gone": true },
    });
    expect(await alice.call("GET", `rooms/${key(room.roomId)}/event/${key(wrong)}`)).toMatchObject({ status: 404 });
    const anew = (await alice.sync({ filter: LAZY })).rooms.join[room.roomId];
    expect(anew.state.events.map((event: Body) => event.type)).not.toContain("org.example.note");
  });
});

describe("an event of ours that the full state rejects", () => {
  it("is told to its sender, goes to no further server, and can be read about later", async () => {
    const levels = { users: { [resident.founder]: 100, [MALLORY]: 50, [alice.userId]: 50 } };
    await wrongState("m.room.power_levels", levels);
    resident.trouble({ kind: "hold", at: "send" });
    const path = `rooms/${key(room.roomId)}/state/m.room.topic`;
    const { event_id: eventId } = await alice.ok("PUT", path, { body: { topic: "mine" } });
    const { next_batch: since } = await alice.sync();

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    resident.clearTrouble();
    const rejection = (await loadEvent(database.pool, eventId))?.rejection;
    expect(rejection).not.toBeNull();
    const { to_device } = await alice.sync({ since });
    const [notice] = to_device.events.filter((event: Body) => event.type === "org.fastjoin.event_refused");
    expect(notice).toMatchObject({
      sender: alice.userId,
      content: { room_id: room.roomId, event_id: eventId, event_type: "m.room.topic", outcome: "rejected" },
    });
    expect(`${notice.content.rule}: ${notice.content.reason}`).toBe(rejection);
    const { rows } = await database.pool.query("SELECT 1 FROM outbox WHERE event_id = $1", [eventId]);
    expect(rows).toEqual([]);
    const changes = await resyncEventChanges(database.pool, room.roomId, { limit: 10 });
    expect(changes).toContainEqual(
      expect.objectContaining({ eventId, change: "rejected", rule: notice.content.rule, type: "m.room.topic" }),
    );
  });
});

describe("an event of ours that the full state soft-fails", () => {
  it("is told to its sender, and is delivered all the same", async () => {
    const LEAVER: UserId = "@leaver:server-002.rooms.test";
    const other = resident.hostRoom({ members: 330 + rooms });
    const levels = (users: Body): Body => ({ type: "m.room.power_levels", content: { users } });
    await alice.ok("POST", `join/${key(other.roomId)}`, { body: {}, query: { via: resident.serverName } });
    await resident.join(other, LEAVER);
    await resident.sendState(other, levels({ [resident.founder]: 100, [LEAVER]: 50 }));
    const { eventId: fork } = await resident.sendMessage(other, resident.founder, "the last that the leaver saw");
    await resident.leave(other, LEAVER);
    // It came after the leave, beside it, and all that alice may do rests on it.
    const users = { [resident.founder]: 100, [LEAVER]: 50, [alice.userId]: 50 };
    await resident.send(other, { sender: LEAVER, stateKey: "", ...levels(users) }, { prevEvents: [fork] });
    resident.trouble({ kind: "hold", at: "send" });
    const path = `rooms/${key(other.roomId)}/state/m.room.topic`;
    const { event_id: eventId } = await alice.ok("PUT", path, { body: { topic: "mine" } });
    const { next_batch: since } = await alice.sync();

    const wanted = sidecar.wanted.findLast(({ roomId }) => roomId === other.roomId);
    await driveResync(sidecar.ctx, other.roomId, wanted?.joinEventId as EventId);

    resident.clearTrouble();
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, softFailed: true });
    const { to_device } = await alice.sync({ since });
    const [notice] = to_device.events.filter((event: Body) => event.type === "org.fastjoin.event_refused");
    expect(notice.content).toMatchObject({ event_id: eventId, outcome: "soft-failed" });
    const { rows } = await database.pool.query("SELECT 1 FROM outbox WHERE event_id = $1", [eventId]);
    expect(rows).not.toEqual([]);
  });
});

describe("a membership that a client was told by an event's auth events", () => {
  it("is told anew where the full state has another", async () => {
    const BOB: UserId = "@bob:server-002.rooms.test";
    const quiet = { push: false };
    const other = resident.hostRoom({ members: 300 + rooms });
    const { eventId: joined } = await resident.join(other, BOB, quiet);
    const rename = {
      sender: BOB,
      type: "m.room.member",
      stateKey: BOB,
      content: { membership: "join", displayname: "B" },
    };
    const { eventId: renamed } = await resident.send(other, rename, quiet);
    await alice.ok("POST", `join/${key(other.roomId)}`, { body: {}, query: { via: resident.serverName } });
    const state = resident.fullState(other);
    const [create, levels] = ["m.room.create", "m.room.power_levels"].map((type) => state.get(stateKeyOf(type, "")));
    const authEvents = [create, levels, joined] as EventId[];
    await resident.sendMessage(other, BOB, "under my old name", { authEvents });
    const { next_batch: since, rooms: seen } = await alice.sync({ filter: LAZY });
    const members = seen.join[other.roomId].state.events.filter((event: Body) => event.state_key === BOB);
    expect(members.map((event: Body) => event.event_id)).toEqual([joined]);

    const wanted = sidecar.wanted.findLast(({ roomId }) => roomId === other.roomId);
    await driveResync(sidecar.ctx, other.roomId, wanted?.joinEventId as EventId);

    const told = (await alice.sync({ since, filter: LAZY })).rooms.join[other.roomId].state.events;
    expect(told.map((event: Body) => event.event_id)).toEqual([renamed]);
  });
});
