import { afterEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { lostEventCounts } from "../../../src/rooms/lost-events.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { memberId } from "../../resident/generate-room.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Trouble } from "../../resident/trouble.ts";
import { expectWhole, hostRoom, join } from "../../support/race-scene.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;
const quiet = { push: false };
afterEach(() => resident.clearTrouble());

function spoil(eventId: EventId, how: "signature" | "form" = "signature"): void {
  resident.trouble({ kind: "lie", lie: "spoil", eventId, how, at: "send_join" } as Trouble);
}

function stateOf(room: HostedRoom, type: string, stateKey = ""): EventId {
  const eventId = resident.fullState(room).get(stateKeyOf(type, stateKey));
  if (eventId === undefined) throw new Error(`the room has no ${type}`);
  return eventId;
}

/** Joins in spite of the holes, which are there until the resync and are counted; then nothing is missing. */
async function expectJoinedWithHoles(room: HostedRoom, holes: readonly EventId[]): Promise<void> {
  const { roomId } = room;
  const before = lostEventCounts().get("join-answer") ?? 0;
  const joined = await join(scene, sidecar.ctx, room);
  expect(joined.partial).toBe(true);
  const known = new Set((await sidecar.currentState(roomId)).values());
  for (const hole of holes) {
    expect(known.has(hole)).toBe(false);
    expect(await loadEvent(pool, hole)).toBeUndefined();
  }
  expect(lostEventCounts().get("join-answer")).toBeGreaterThanOrEqual(before + holes.length);
  expect(await driveResync(sidecar.ctx, roomId, joined.eventId)).toBe("completed");
  const target = { roomId, joinEventId: joined.eventId };
  await expectWhole(scene, { room, roomId, target });
}

async function expectRefused(room: HostedRoom, reason: RegExp): Promise<void> {
  await expect(join(scene, sidecar.ctx, room)).rejects.toMatchObject({
    status: 502,
    message: expect.stringMatching(reason),
  });
  expect(await partialRoom(pool, room.roomId)).toBeUndefined();
}

/** State that a moderator set: it builds on the moderator's own membership. */
async function byModerator(room: HostedRoom): Promise<{ readonly state: EventId; readonly member: EventId }> {
  const moderator: UserId = memberId(1, { servers: 5 });
  const state = { sender: moderator, type: "org.example.by_moderator", stateKey: "", content: {} };
  const { eventId } = await resident.send(room, state, quiet);
  return { state: eventId, member: stateOf(room, "m.room.member", moderator) };
}

describe("a light answer to send_join", () => {
  it.each(["signature", "form"] as const)("may hold state of a bad %s, which the resync then brings", async (how) => {
    const room = hostRoom(scene);
    const topic = stateOf(room, "m.room.topic");
    spoil(topic, how);
    await expectJoinedWithHoles(room, [topic]);
  });

  it("is taken without what builds upon a bad event of its auth chain", async () => {
    const room = hostRoom(scene);
    const { state, member } = await byModerator(room);
    spoil(member);
    await expectJoinedWithHoles(room, [state, member]);
  });

  it("is taken without what builds upon an event that its auth chain lacks", async () => {
    const room = hostRoom(scene);
    const { state, member } = await byModerator(room);
    resident.trouble({ kind: "lie", lie: "missing-auth", eventId: member, at: "send_join" });
    await expectJoinedWithHoles(room, [state]);
  });

  it.each(["m.room.create", "m.room.power_levels", "m.room.join_rules"])(
    "is refused where its %s is bad",
    async (type) => {
      const room = hostRoom(scene);
      spoil(stateOf(room, type));
      await expectRefused(room, type === "m.room.create" ? /can't be proved/ : new RegExp(`no genuine ${type}`));
    },
  );

  it("is refused where what the join is judged by builds upon a bad event", async () => {
    const room = hostRoom(scene);
    spoil(stateOf(room, "m.room.member", resident.founder));
    await expectRefused(room, /no genuine m\.room/);
  });
});

describe("a full answer to send_join", () => {
  it.each(["signature", "form"] as const)(
    "makes a partial room where an event of the state has a bad %s, so that the resync brings it",
    async (how) => {
      const room = hostRoom(scene);
      const topic = stateOf(room, "m.room.topic");
      resident.trouble({ kind: "full-join" });
      spoil(topic, how);
      await expectJoinedWithHoles(room, [topic]);
    },
  );

  it("makes a partial room where an event of the state builds upon a bad one", async () => {
    const room = hostRoom(scene);
    const user: UserId = memberId(3, { servers: 5 });
    const first = stateOf(room, "m.room.member", user);
    const renamed = {
      sender: user,
      type: "m.room.member",
      stateKey: user,
      content: { membership: "join", displayname: "New" },
    };
    const { eventId } = await resident.send(room, renamed, quiet);
    resident.trouble({ kind: "full-join" });
    spoil(first);
    await expectJoinedWithHoles(room, [eventId, first]);
  });

  it("makes a full room where only the auth chain holds a bad event, on which nothing of the state builds", async () => {
    const room = hostRoom(scene);
    const chain = { type: "org.example.odd", sender: "nobody", room_id: room.roomId };
    resident.trouble({ kind: "full-join" });
    resident.trouble({ kind: "lie", lie: "foreign-auth", pdu: chain, at: "send_join" });
    const joined = await join(scene, sidecar.ctx, room);
    expect(joined.partial).toBe(false);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});
