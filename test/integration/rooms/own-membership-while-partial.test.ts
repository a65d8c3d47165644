import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { membershipOf } from "../../../src/storage/memberships.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const { userId, ctx } = sidecar;

const NEWCOMER: UserId = "@newcomer:server-001.rooms.test";

let members = 240;
let room: HostedRoom;
let beforeJoin: readonly EventId[];
let joinEventId: EventId;
let openRules: EventId;

/** A public room, whose join rules change to knocking as soon as we are in. */
beforeEach(async () => {
  members += 1;
  room = resident.hostRoom({ members });
  beforeJoin = [...room.extremities];
  openRules = resident.fullState(room).get(stateKeyOf("m.room.join_rules", "")) as EventId;
  joinEventId = (await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] })).eventId;
  await resident.sendState(room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
});

/** A join from beside ours, under the rules of before; its maker knows nothing of ours. */
async function joinBeside(): Promise<EventId> {
  const state = resident.fullState(room);
  const [create, levels] = ["m.room.create", "m.room.power_levels"].map((type) => state.get(stateKeyOf(type, "")));
  const join = { sender: NEWCOMER, type: "m.room.member", stateKey: NEWCOMER, content: { membership: "join" } };
  const authEvents = [create, levels, openRules] as EventId[];
  // The resident itself has nothing to do with it: it would have to soft-fail it too.
  const { eventId } = await resident.send(room, join, { prevEvents: beforeJoin, authEvents, keep: false });
  await receiveWaitingPdus(ctx);
  return eventId;
}

describe("an event of a member whose membership we lack", () => {
  it("is accepted, though the rules under which they joined have changed since", async () => {
    const member = resident
      .joinedMembers(room)
      .find((user) => user.endsWith(".rooms.test") && user !== resident.founder);
    const { eventId } = await resident.sendMessage(room, member as UserId, "I was here before");
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
  });
});

describe("a concurrent event in a partial room", () => {
  it("takes none of our users out of the room, though its state knows nothing of them", async () => {
    const beside = await joinBeside();
    expect(await forwardExtremities(database.pool, room.roomId)).toContain(beside);
    expect(await membershipOf(database.pool, room.roomId, userId)).toMatchObject({ membership: "join" });

    const { eventId } = await createEvent(ctx, {
      roomId: room.roomId,
      sender: userId,
      type: "m.room.message",
      content: { body: "still here" },
    });
    expect((await loadEvent(database.pool, eventId))?.rejection).toBeNull();
    const message = await resident.sendMessage(room, resident.founder, "I hear you");
    expect((await loadEvent(database.pool, message.eventId))?.outlier).toBe(false);
  });

  it("is soft-failed in the end, as a fully joined server would have done", async () => {
    const beside = await joinBeside();

    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");

    expect((await loadEvent(database.pool, beside))?.softFailed).toBe(true);
    expect(await forwardExtremities(database.pool, room.roomId)).not.toContain(beside);
    expect(await membershipOf(database.pool, room.roomId, userId)).toMatchObject({ membership: "join" });
    expect(await membershipOf(database.pool, room.roomId, NEWCOMER)).toBeUndefined();
  });

  it("does not undo a later kick of our user", async () => {
    await resident.kick(room, userId);
    await joinBeside();
    expect(await membershipOf(database.pool, room.roomId, userId)).toMatchObject({ membership: "leave" });
  });
});
