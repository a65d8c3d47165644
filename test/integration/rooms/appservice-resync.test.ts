import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import {
  acknowledge,
  appservicesOf,
  aService,
  pushUntilTestEnds,
  startServiceReceiver,
} from "../../support/application-service.ts";
import { driveResync } from "../../support/drive-resync.ts";
import type { Body } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const receiver = await startServiceReceiver();
const bridge = aService({ url: receiver.url });
const ctx = { ...sidecar.ctx, appservices: appservicesOf(bridge) };
const ghost: UserId = `@_bridge_ghost:${sidecar.serverName}`;

const MALLORY: UserId = "@mallory:server-001.rooms.test";
const MODERATOR: UserId = "@moderator:server-003.rooms.test";
const VICTIM: UserId = "@victim:server-002.rooms.test";

interface RoomWithHiddenBan {
  readonly room: HostedRoom;
  readonly joinEventId: EventId;
  /** What the banned moderator can still name as auth events: the state when it was joined. */
  readonly stale: readonly EventId[];
  readonly topic: EventId;
}

let members = 80;
let scene: RoomWithHiddenBan;

/** A room from which a moderator was banned before the service's user joined: with members omitted, we can't see it. */
async function enterRoomWithHiddenBan(): Promise<RoomWithHiddenBan> {
  members += 1;
  const room = resident.hostRoom({ members });
  const quiet = { push: false };
  await resident.join(room, VICTIM, quiet);
  await resident.join(room, MODERATOR, quiet);
  const { eventId: malloryJoined } = await resident.join(room, MALLORY, quiet);
  const content = {
    users: { [resident.founder]: 100, [MALLORY]: 50, [MODERATOR]: 50 },
    kick: 50,
    ban: 50,
    state_default: 50,
  };
  const { eventId: levels } = await resident.sendState(room, { type: "m.room.power_levels", content }, quiet);
  const topic = { type: "m.room.topic", content: { topic: "of the founder" } };
  const { eventId: topicId } = await resident.sendState(room, topic, quiet);
  const create = resident.fullState(room).get(stateKeyOf("m.room.create", "")) as EventId;
  await resident.ban(room, MALLORY, quiet);
  const joined = await joinRoom(ctx, { userId: ghost, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId, stale: [create, levels, malloryJoined], topic: topicId };
}

/** What was pushed of an event, each time. */
function pushed(eventId: EventId): readonly Body[] {
  return receiver.events().filter(({ event_id: id }) => id === eventId);
}

async function isAccepted(eventId: EventId): Promise<boolean> {
  return (await loadEvent(database.pool, eventId))?.rejection === null;
}

beforeEach(async () => {
  (receiver.seen as unknown[]).length = 0;
  receiver.handler = acknowledge;
  await database.pool.query(
    `DELETE FROM appservice_pushes;
     INSERT INTO appservice_pushes (appservice_id, position) SELECT '${bridge.id}', position FROM stream_position`,
  );
  scene = await enterRoomWithHiddenBan();
});

describe("the pushes behind a resync", () => {
  it("bring the event that stands again where a state event was taken away", async () => {
    const { room, joinEventId, stale, topic } = scene;
    pushUntilTestEnds(ctx);
    const wrong = await resident.send(
      room,
      { sender: MALLORY, type: "m.room.topic", stateKey: "", content: { topic: "of mallory" } },
      { authEvents: stale, evenIfRejected: true },
    );
    await expect.poll(() => pushed(wrong.eventId).length).toBe(1);
    expect(pushed(topic)).toEqual([]);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await isAccepted(wrong.eventId)).toBe(false);
    await expect.poll(() => pushed(topic)).toEqual([expect.objectContaining({ content: { topic: "of the founder" } })]);
    expect(pushed(wrong.eventId).length).toBe(1);
  });

  it("say of a state event in whose place nothing stands that it is gone", async () => {
    const { room, joinEventId, stale } = scene;
    pushUntilTestEnds(ctx);
    const wrong = await resident.send(
      room,
      { sender: MALLORY, type: "org.example.note", stateKey: "", content: { note: "mallory was here" } },
      { authEvents: stale, evenIfRejected: true },
    );
    await expect.poll(() => pushed(wrong.eventId).length).toBe(1);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await isAccepted(wrong.eventId)).toBe(false);
    await expect.poll(() => pushed(wrong.eventId).length).toBe(2);
    expect(pushed(wrong.eventId)[1]).toMatchObject({
      room_id: room.roomId,
      type: "org.example.note",
      state_key: "",
      content: {},
      unsigned: { "org.fastjoin.gone": true },
    });
  });

  it("bring a message that was rejected on partial state and is accepted now", async () => {
    const { room, joinEventId, stale } = scene;
    pushUntilTestEnds(ctx);
    const victimJoined = resident.fullState(room).get(stateKeyOf("m.room.member", VICTIM)) as EventId;
    const ban = await resident.send(
      room,
      { sender: MALLORY, type: "m.room.member", stateKey: VICTIM, content: { membership: "ban" } },
      { authEvents: [...stale, victimJoined], evenIfRejected: true },
    );
    const { eventId } = await resident.sendMessage(room, VICTIM, "I am not banned", { prevEvents: [ban.eventId] });
    expect(await isAccepted(eventId)).toBe(false);
    await expect.poll(() => pushed(ban.eventId).length).toBe(1);
    expect(pushed(eventId)).toEqual([]);

    await driveResync(ctx, room.roomId, joinEventId);

    await expect
      .poll(() => pushed(eventId))
      .toEqual([expect.objectContaining({ content: { msgtype: "m.text", body: "I am not banned" } })]);
    await expect.poll(() => pushed(victimJoined).length).toBe(1);
    expect(pushed(victimJoined)[0]).toMatchObject({ state_key: VICTIM, content: { membership: "join" } });
  });

  it("bring what has replaced a state event since that is accepted only now", async () => {
    const { room, joinEventId, stale } = scene;
    pushUntilTestEnds(ctx);
    const victimJoined = resident.fullState(room).get(stateKeyOf("m.room.member", VICTIM)) as EventId;
    const member = { type: "m.room.member", stateKey: VICTIM };
    const ban = await resident.send(
      room,
      { sender: MALLORY, ...member, content: { membership: "ban" } },
      { authEvents: [...stale, victimJoined], evenIfRejected: true },
    );
    const renamed = await resident.send(
      room,
      { sender: VICTIM, ...member, content: { membership: "join", displayname: "Victim" } },
      { prevEvents: [ban.eventId] },
    );
    expect(await isAccepted(renamed.eventId)).toBe(false);
    const state = resident.fullState(room);
    const named = ["m.room.create", "m.room.power_levels"].map((type) => state.get(stateKeyOf(type, "")));
    const founder = state.get(stateKeyOf("m.room.member", resident.founder));
    const kick = await resident.kick(room, VICTIM, {
      prevEvents: [...new Set([...room.extremities, renamed.eventId])],
      authEvents: [...named, founder, victimJoined] as EventId[],
    });
    await expect.poll(() => pushed(kick.eventId).length).toBe(1);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await isAccepted(renamed.eventId)).toBe(true);
    const last = await resident.sendMessage(room, resident.founder, "behind the resync");
    await expect.poll(() => pushed(last.eventId).length).toBe(1);
    const ofVictim = receiver.events().filter(({ state_key: stateKey }) => stateKey === VICTIM);
    expect(ofVictim.at(-1)).toMatchObject({ event_id: kick.eventId, content: { membership: "leave" } });
  });

  it("reach a service that was down from before the join to behind the resync", async () => {
    const { room, joinEventId, stale, topic } = scene;
    const wrong = await resident.send(
      room,
      { sender: MALLORY, type: "m.room.topic", stateKey: "", content: { topic: "of mallory" } },
      { authEvents: stale, evenIfRejected: true },
    );
    const { eventId: message } = await resident.sendMessage(room, resident.founder, "hello");
    await driveResync(ctx, room.roomId, joinEventId);
    pushUntilTestEnds(ctx);

    await expect.poll(() => pushed(topic).length).toBe(1);
    await expect.poll(() => pushed(message).length).toBe(1);
    expect(pushed(wrong.eventId)).toEqual([]);
    expect(pushed(joinEventId).length).toBe(1);
  });

  it("bring what stands also where a state event was refused that another had replaced already", async () => {
    const { room, joinEventId, stale } = scene;
    pushUntilTestEnds(ctx);
    const wrong = await resident.send(
      room,
      { sender: MALLORY, type: "m.room.topic", stateKey: "", content: { topic: "of mallory" } },
      { authEvents: stale, evenIfRejected: true },
    );
    const later = { type: "m.room.topic", content: { topic: "the founder's second" } };
    const { eventId } = await resident.sendState(room, later);
    await expect.poll(() => pushed(eventId).length).toBe(1);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await isAccepted(wrong.eventId)).toBe(false);
    await expect.poll(() => pushed(eventId).length).toBe(2);
    expect(pushed(eventId)[1]).toMatchObject({ content: { topic: "the founder's second" } });
  });

  it("bring what stands where a state event was soft-failed at the end", async () => {
    const { room, joinEventId, topic } = scene;
    pushUntilTestEnds(ctx);
    await resident.leave(room, MODERATOR);
    const late = await resident.send(
      room,
      { sender: MODERATOR, type: "m.room.topic", stateKey: "", content: { topic: "I never left" } },
      { prevEvents: [joinEventId] },
    );
    await expect.poll(() => pushed(late.eventId).length).toBe(1);
    const before = pushed(topic).length;

    await driveResync(ctx, room.roomId, joinEventId);

    expect((await loadEvent(database.pool, late.eventId))?.softFailed).toBe(true);
    await expect.poll(() => pushed(topic).length).toBe(before + 1);
  });

  it("tell a service of its own user's message that was refused", async () => {
    const { room, joinEventId, stale } = scene;
    pushUntilTestEnds(ctx);
    const users = { [resident.founder]: 100, [MALLORY]: 50 };
    const type = "m.room.power_levels";
    const strict = await resident.sendState(room, { type, content: { users, events_default: 50 } });
    const [create, , malloryJoined] = stale;
    const content = { users: { ...users, [ghost]: 50 }, events_default: 50 };
    const wrong = await resident.send(
      room,
      { sender: MALLORY, type, stateKey: "", content },
      { authEvents: [create as EventId, strict.eventId, malloryJoined as EventId], evenIfRejected: true },
    );
    expect(await isAccepted(wrong.eventId)).toBe(true);
    const message = { type: "m.room.message", content: { body: "by Mallory's leave" } };
    const { eventId } = await createEvent(ctx, { roomId: room.roomId, sender: ghost, ...message });
    await expect.poll(() => pushed(eventId).length).toBe(1);

    await driveResync(ctx, room.roomId, joinEventId);

    expect(await isAccepted(eventId)).toBe(false);
    await expect.poll(() => pushed(eventId).length).toBe(2);
    expect(pushed(eventId)[1]).toMatchObject({ content: {}, unsigned: { "org.fastjoin.gone": true } });
  });

  it("tell of no memberships that were merely unknown, but of those who have sent something", async () => {
    const { room, joinEventId } = scene;
    pushUntilTestEnds(ctx);
    const { eventId } = await resident.sendMessage(room, resident.founder, "hello");
    await driveResync(ctx, room.roomId, joinEventId);
    await expect.poll(() => pushed(eventId).length).toBe(1);
    const last = await resident.sendMessage(room, resident.founder, "behind the resync");
    await expect.poll(() => pushed(last.eventId).length).toBe(1);
    const founder = resident.fullState(room).get(stateKeyOf("m.room.member", resident.founder));
    expect(receiver.events().map(({ event_id: id }) => id)).toEqual([joinEventId, eventId, founder, last.eventId]);
  });
});
