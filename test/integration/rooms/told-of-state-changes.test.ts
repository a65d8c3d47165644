import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi, type Body, type TestClient } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const api = await startLoopbackClientApi(database, sidecar.ctx);

const MALLORY: UserId = "@mallory:server-001.rooms.test";
const MODERATOR: UserId = "@moderator:server-002.rooms.test";
const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });
const key = encodeURIComponent;

let rooms = 0;
let room: HostedRoom;
let joinEventId: EventId;
let topic: EventId;
let alice: TestClient;

/** A room of two moderators, one of whom was banned before we joined: with members omitted, we can't see the ban. */
beforeEach(async () => {
  rooms += 1;
  room = resident.hostRoom({ members: 400 + rooms });
  const quiet = { push: false };
  for (const user of [MALLORY, MODERATOR]) await resident.join(room, user, quiet);
  const content = { users: { [resident.founder]: 100, [MALLORY]: 60, [MODERATOR]: 50 } };
  await resident.sendState(room, { type: "m.room.power_levels", content }, quiet);
  const first = await resident.sendState(room, { type: "m.room.topic", content: { topic: "first" } }, quiet);
  topic = first.eventId;
  alice = await api.register(`alice${rooms}`);
});

async function enter(): Promise<void> {
  await alice.ok("POST", `join/${key(room.roomId)}`, { body: {}, query: { via: resident.serverName } });
  const joined = sidecar.wanted.findLast(({ roomId }) => roomId === room.roomId);
  joinEventId = joined?.joinEventId as EventId;
}

function ofState(type: string, stateKey = ""): EventId {
  return resident.fullState(room).get(stateKeyOf(type, stateKey)) as EventId;
}

async function setTopic(sender: UserId, prevEvents: readonly EventId[]): Promise<EventId> {
  const change = { sender, type: "m.room.topic", stateKey: "", content: { topic: `of ${sender}` } };
  return (await resident.send(room, change, { prevEvents })).eventId;
}

/** The room's part of a sync, in the order in which a client applies it. */
function eventsOf(answer: Body): readonly Body[] {
  const part = answer.rooms?.join?.[room.roomId];
  return [...part.state.events, ...part.timeline.events];
}

/** What a client that keeps the last event of a key holds for the topic after these answers. */
function topicOf(answers: readonly Body[]): string {
  return answers.flatMap(eventsOf).findLast(({ type }) => type === "m.room.topic")?.content.topic;
}

/** A topic that builds on a moderator's ban by the other one, whose own ban we don't see. */
async function enterAndRefuseTopic(): Promise<EventId> {
  const authEvents = [
    ofState("m.room.create"),
    ofState("m.room.power_levels"),
    ofState("m.room.member", MALLORY),
    ofState("m.room.member", MODERATOR),
  ];
  await resident.ban(room, MALLORY, { push: false });
  await enter();
  const wrongBan = await resident.send(
    room,
    { sender: MALLORY, type: "m.room.member", stateKey: MODERATOR, content: { membership: "ban" } },
    { authEvents, evenIfRejected: true },
  );
  return await setTopic(MODERATOR, [wrongBan.eventId]);
}

async function shownTopic(): Promise<string> {
  return (await alice.ok("GET", `rooms/${key(room.roomId)}/state/m.room.topic`)).topic;
}

describe("a state event that partial state refuses and the full one accepts", () => {
  it("is told to a client, and stands in the room's state", async () => {
    const restored = await enterAndRefuseTopic();
    expect((await loadEvent(database.pool, restored))?.rejection).not.toBeNull();
    const before = await alice.sync({ filter: LAZY });
    expect(topicOf([before])).toBe("first");

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    const after = await alice.sync({ since: before.next_batch, filter: LAZY });
    expect(eventsOf(after).map(({ event_id: id }) => id)).toContain(restored);
    expect(topicOf([before, after])).toBe(`of ${MODERATOR}`);
    expect(await shownTopic()).toBe(`of ${MODERATOR}`);
  });

  it("takes nothing from a client that knows what has replaced it", async () => {
    const restored = await enterAndRefuseTopic();
    const newer = { type: "m.room.topic", content: { topic: "newer" } };
    await resident.sendState(room, newer, { prevEvents: [...new Set([...room.extremities, restored])] });
    const before = await alice.sync({ filter: LAZY });
    expect(topicOf([before])).toBe("newer");

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect((await loadEvent(database.pool, restored))?.rejection).toBeNull();
    const after = await alice.sync({ since: before.next_batch, filter: LAZY });
    expect(await shownTopic()).toBe("newer");
    expect(topicOf([before, after])).toBe("newer");
  });
});

describe("a state event that is soft-failed when the state is full", () => {
  it("is told to a client as the event that stands in its place", async () => {
    await enter();
    await resident.leave(room, MODERATOR);
    const late = await setTopic(MODERATOR, [joinEventId]);
    const before = await alice.sync({ filter: LAZY });
    expect(eventsOf(before).map(({ event_id: id }) => id)).toContain(late);
    // State resolution has the leave win at once, which a timeline does not show.
    expect(await shownTopic()).toBe("first");
    expect(topicOf([before])).toBe(`of ${MODERATOR}`);

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect((await loadEvent(database.pool, late))?.softFailed).toBe(true);
    const after = await alice.sync({ since: before.next_batch, filter: LAZY });
    expect(eventsOf(after).map(({ event_id: id }) => id)).toContain(topic);
    expect(topicOf([before, after])).toBe("first");
    expect(await shownTopic()).toBe("first");
  });
});
