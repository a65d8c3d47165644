import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { stateEntries, stateGetByKey, stateKeyOf, type StateKey, type StateMap } from "../../../src/matrix/state.ts";
import { resolveRoomState } from "../../../src/rooms/events/resolve-room-state.ts";
import { loadEvent, type StoredEvent } from "../../../src/storage/events.ts";
import { partialEventIds } from "../../../src/storage/partial-state.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { loadState } from "../../../src/storage/state-snapshots.ts";
import { timeline } from "../../../src/storage/timeline.ts";
import { memberId } from "../../resident/generate-room.ts";
import { stateBefore } from "../../resident/hosted-room.ts";
import type { Sending } from "../../resident/resident.ts";
import { handleWaiting } from "../../support/gap-scene.ts";
import { completeResync, enterRoom, type EnteredRoom } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;

async function stored(eventId: EventId): Promise<StoredEvent> {
  const event = await loadEvent(pool, eventId);
  if (event === undefined) throw new Error(`${eventId} is not stored`);
  return event;
}

async function stateAt(snapshotId: bigint | null): Promise<StateMap> {
  if (snapshotId === null) throw new Error("the event has no state");
  return await loadState(database, snapshotId);
}

async function isPartial(eventId: EventId): Promise<boolean> {
  return (await partialEventIds(pool, [eventId])).has(eventId);
}

function say({ room }: EnteredRoom, body: string, sending?: Sending): Promise<EventId> {
  return resident.sendMessage(room, resident.founder, body, sending).then(({ eventId }) => eventId);
}

function change({ room }: EnteredRoom, type: string, label: string, sending?: Sending): Promise<EventId> {
  return resident.sendState(room, { type, content: { label } }, sending).then(({ eventId }) => eventId);
}

function isNoMember([key]: readonly [StateKey, EventId]): boolean {
  return !key.startsWith("m.room.member");
}

describe("an event in a partial room", () => {
  it("is partial exactly if a known prev_event is", async () => {
    const entered = await enterRoom(scene);
    const tip = { prevEvents: [...entered.room.extremities] };
    const onPartial = await say(entered, "on our join", tip);
    expect(await isPartial(onPartial)).toBe(true);

    // Its past is unknown, and told as a whole: nothing about it is partial.
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    const hidden = await say(entered, "hidden", { ...tip, push: false });
    const onTold = await say(entered, "on what was told", { prevEvents: [hidden] });
    await handleWaiting(scene, entered);
    refusing();
    expect(await isPartial(onTold)).toBe(false);

    const onFull = await say(entered, "on the full one", { prevEvents: [onTold] });
    const onBoth = await say(entered, "on both", { prevEvents: [onPartial, onFull] });
    expect(await isPartial(onFull)).toBe(false);
    expect(await isPartial(onBoth)).toBe(true);
    await completeResync(scene, entered);
  });

  it("is no outlier: it has its place in the timeline, a state before it and a state after it", async () => {
    const entered = await enterRoom(scene);
    const eventId = await say(entered, "partial");

    const event = await stored(eventId);
    expect(await isPartial(eventId)).toBe(true);
    expect(event).toMatchObject({ outlier: false, stateBefore: expect.anything(), stateAfter: expect.anything() });
    const seen = await timeline(pool, entered.roomId, { direction: "forward", limit: 10 });
    expect(seen.map((one) => one.eventId)).toContain(eventId);
  });
});

describe("the partial state after an event", () => {
  it("is the state before it where it is a message", async () => {
    const entered = await enterRoom(scene);
    const event = await stored(await say(entered, "a message"));
    expect(event.stateAfter).toBe(event.stateBefore);
  });

  it("is the state before it where it is rejected, and its child's past is without it", async () => {
    const entered = await enterRoom(scene);
    const { room } = entered;
    const tip = [...room.extremities];
    const topic = { type: "m.room.topic", stateKey: "", content: { topic: "not for members to set" } };
    const sender = memberId(5, { servers: 5 });
    const { eventId } = await resident.send(room, { ...topic, sender, evenIfRejected: true });
    const child = await say(entered, "on the rejected one", { prevEvents: [eventId, ...tip] });

    const rejected = await stored(eventId);
    expect(rejected.rejection).not.toBeNull();
    expect(rejected.stateAfter).toBe(rejected.stateBefore);
    expect(await stored(child)).toMatchObject({ rejection: null });
    const before = await stateAt((await stored(child)).stateBefore);
    expect([...stateEntries(before)].map(([, id]) => id)).not.toContain(eventId);
  });

  it("is the state before it with the event itself where it is of state", async () => {
    const entered = await enterRoom(scene);
    const eventId = await change(entered, "m.room.topic", "new");
    const event = await stored(eventId);
    const [before, after] = [await stateAt(event.stateBefore), await stateAt(event.stateAfter)];
    const key = stateKeyOf("m.room.topic", "");
    expect(new Map(stateEntries(after))).toEqual(new Map([...stateEntries(before), [key, eventId]]));
  });
});

describe("the partial state before an event with several prev_events", () => {
  it("is the resolution of the partial states after them", async () => {
    const entered = await enterRoom(scene);
    const { room } = entered;
    const tip = { prevEvents: [...room.extremities] };
    const left = await change(entered, "org.example.left", "left", tip);
    const right = await change(entered, "org.example.right", "right", tip);
    const topics = [
      await change(entered, "m.room.topic", "left", { prevEvents: [left] }),
      await change(entered, "m.room.topic", "right", { prevEvents: [right] }),
    ];
    const merge = await say(entered, "merge", { prevEvents: topics });

    const before = await stateAt((await stored(merge)).stateBefore);
    const afters = await Promise.all(topics.map(async (id) => await stateAt((await stored(id)).stateAfter)));
    const resolved = await resolveRoomState(pool, room.rules, afters);
    expect(new Map(stateEntries(before))).toEqual(new Map(stateEntries(resolved)));
    expect(topics).toContain(stateGetByKey(before, stateKeyOf("m.room.topic", "")));
    // And so has the server that knows everything, as to what we can know.
    const theirs = [...stateEntries(stateBefore(room, merge))].filter(isNoMember);
    expect(new Map([...stateEntries(before)].filter(isNoMember))).toEqual(new Map(theirs));
    await completeResync(scene, entered);
  });
});

describe("the current partial state of a room", () => {
  it("is the resolution of the states after all its forward extremities", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    const tip = { prevEvents: [...room.extremities] };
    const ends: EventId[] = [];
    for (const label of ["one", "two", "three"]) {
      const own = await change(entered, `org.example.${label}`, label, tip);
      ends.push(await change(entered, "m.room.topic", label, { prevEvents: [own] }));
    }

    expect([...(await forwardExtremities(pool, roomId))].toSorted()).toEqual(ends.toSorted());
    const afters = await Promise.all(ends.map(async (id) => await stateAt((await stored(id)).stateAfter)));
    const resolved = await resolveRoomState(pool, room.rules, afters);
    const current = await sidecar.currentState(roomId);
    expect(current).toEqual(new Map(stateEntries(resolved)));
    const theirs = [...resident.fullState(room)].filter(isNoMember);
    expect(new Map([...current].filter(isNoMember))).toEqual(new Map(theirs));
    await completeResync(scene, entered);
  });
});
