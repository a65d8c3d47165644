import { beforeEach, describe, expect, it } from "vitest";
import type { Event } from "../../../src/matrix/event.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { readPushItems } from "../../../src/storage/appservice-items.ts";
import {
  beginPush,
  endPush,
  endPushBackOff,
  introduceAppservice,
  loadPushState,
  skipTo,
  storePushBackOff,
  type PushPlace,
} from "../../../src/storage/appservice-pushes.ts";
import { transaction } from "../../../src/storage/database.ts";
import { insertOutliers, insertTimelineEvent } from "../../../src/storage/events.ts";
import { purgeRoom } from "../../../src/storage/purge-room.ts";
import {
  appendCurrentStateDeltas,
  appendLocalMembership,
  appendUnPartialStatedEvents,
  appendUnPartialStatedRoom,
  currentStreamPosition,
  takeStreamPositions,
} from "../../../src/storage/streams.ts";
import { openTestDatabase } from "../../support/database.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();
const { pool } = database;

let start: PushPlace;
let roomId: RoomId;
let events = 0;

beforeEach(async () => {
  await pool.query("DELETE FROM appservice_pushes");
  roomId = await aStoredRoom(database);
  start = { position: await currentStreamPosition(pool), items: 0 };
});

async function arrive(): Promise<EventId> {
  const event = anEvent(roomId, `$item${++events}`);
  await storeInTimeline(database, event);
  return event.eventId;
}

/** State events that are outliers, told at one position as the end of a resync tells them. */
async function finishWith(count: number): Promise<readonly EventId[]> {
  const state = Array.from({ length: count }, (_, n) => {
    const pdu = { type: "org.example.item", state_key: String(n).padStart(4, "0") };
    return anEvent(roomId, `$item${++events}`, pdu);
  });
  await transaction(database, async (tx) => {
    await insertOutliers(
      tx,
      state.map((event) => ({ event, rejection: null })),
    );
    const streamId = await takeStreamPositions(tx, 1);
    await appendUnPartialStatedRoom(tx, streamId, roomId);
    await appendCurrentStateDeltas(tx, { streamId, roomId }, state.map(stateChange));
  });
  return state.map(({ eventId }) => eventId);
}

function stateChange({ eventId, pdu }: Event): Parameters<typeof appendCurrentStateDeltas>[2][number] {
  return { key: stateKeyOf(pdu.type, pdu.state_key ?? ""), eventId, previousEventId: null };
}

/** All that can be read from a place on, piece by piece. */
async function readOn(from: PushPlace, limit: number): Promise<readonly EventId[]> {
  const found: EventId[] = [];
  let place = from;
  for (let round = 0; round < 100; round += 1) {
    const { items, end, atEnd } = await readPushItems(pool, place, limit);
    found.push(...items.map(({ eventId }) => eventId));
    place = end;
    if (atEnd) return found;
  }
  throw new Error("there is no end to it");
}

describe("readPushItems", () => {
  it("gives events in the order of the stream, each once, in pieces of any size", async () => {
    const ids = [];
    for (let n = 0; n < 7; n += 1) ids.push(await arrive());
    for (const limit of [1, 2, 3, 7, 8]) expect(await readOn(start, limit)).toEqual(ids);
  });

  it("goes on within a position that holds more than fits", async () => {
    const first = await arrive();
    const told = await finishWith(25);
    const last = await arrive();
    for (const limit of [1, 4, 25, 26, 100]) expect(await readOn(start, limit)).toEqual([first, ...told, last]);
  });

  it("gives with each item the place behind it, from which the rest can be read", async () => {
    await arrive();
    await finishWith(5);
    await arrive();
    const { items, places } = await readPushItems(pool, start, 100);
    for (const [index, place] of places.entries()) {
      expect(await readOn(place, 3)).toEqual(items.slice(index + 1).map(({ eventId }) => eventId));
    }
  });

  it("loses nothing of other rooms when a room is purged in whose middle a place stands", async () => {
    await finishWith(5);
    const { places } = await readPushItems(pool, start, 100);
    const middle = places[2] as PushPlace;
    const purged = roomId;
    roomId = await aStoredRoom(database);
    const later = [await arrive(), await arrive(), await arrive()];
    await transaction(database, (tx) => purgeRoom(tx, purged));
    expect(await readOn(middle, 2)).toEqual(later);
  });

  it("tells state of a resync alone, not that of other events", async () => {
    const event = anEvent(roomId, `$item${++events}`, { type: "m.room.topic", state_key: "" });
    await transaction(database, async (tx) => {
      const streamId = await takeStreamPositions(tx, 1);
      const verdict = { rejection: null, softFailed: false, stateBefore: null, stateAfter: null };
      await insertTimelineEvent(tx, { event, streamId, ...verdict });
      await appendCurrentStateDeltas(tx, { streamId, roomId }, [stateChange(event)]);
    });
    const { items } = await readPushItems(pool, start, 100);
    expect(items.map(({ kind }) => kind)).toEqual(["event"]);
  });

  it("tells memberships of rooms that we are not in", async () => {
    const userId: UserId = "@ghost:us.example";
    const membership = { type: "m.room.member", state_key: userId, content: { membership: "invite" } };
    const invite = anEvent(roomId, `$item${++events}`, membership);
    await transaction(database, async (tx) => {
      await insertOutliers(tx, [{ event: invite, rejection: null }]);
      const streamId = await takeStreamPositions(tx, 1);
      await appendLocalMembership(tx, { streamId, userId, roomId, membership: "invite", eventId: invite.eventId });
    });
    const { items } = await readPushItems(pool, start, 100);
    expect(items).toMatchObject([{ kind: "membership", eventId: invite.eventId, target: userId, accepted: true }]);
  });

  it("tells events that were judged otherwise, and no others", async () => {
    const [changed, same] = [await arrive(), await arrive()];
    await transaction(database, async (tx) => {
      const streamId = await takeStreamPositions(tx, 2);
      await appendUnPartialStatedEvents(tx, [
        { streamId, eventId: changed, rejectionStatusChanged: true },
        { streamId: streamId + 1n, eventId: same, rejectionStatusChanged: false },
      ]);
    });
    const { items } = await readPushItems(pool, start, 100);
    expect(items.map(({ kind, eventId }) => [kind, eventId])).toEqual([
      ["event", changed],
      ["event", same],
      ["judged", changed],
    ]);
  });
});

describe("a transaction that is begun", () => {
  const push = { txnId: "one", body: '{"events":[]}' };

  it("is begun once, from the place where the service is", async () => {
    await introduceAppservice(pool, "bridge");
    const upTo = { position: start.position + 3n, items: 2 };
    expect(await beginPush(pool, "bridge", start, { ...push, upTo })).toBe(true);
    expect(await beginPush(pool, "bridge", start, { ...push, txnId: "two", upTo })).toBe(false);
    expect(await skipTo(pool, "bridge", start, upTo)).toBe(false);
    expect(await loadPushState(pool, "bridge")).toMatchObject({ place: start, begun: { ...push, upTo } });

    await endPush(pool, "bridge", "two");
    expect((await loadPushState(pool, "bridge"))?.begun?.txnId).toBe("one");
    await endPush(pool, "bridge", "one");
    expect(await loadPushState(pool, "bridge")).toEqual({ place: upTo, begun: undefined, backOff: undefined });
    expect(await beginPush(pool, "bridge", start, { ...push, upTo })).toBe(false);
  });

  it("ends the back-off with its acknowledgement, and so does a sign of life", async () => {
    await introduceAppservice(pool, "bridge");
    const backOff = { failingSince: 1_000, retryAt: 3_000, retryIntervalMs: 2_000, lastError: "away" };
    await storePushBackOff(pool, "bridge", backOff);
    await storePushBackOff(pool, "bridge", { ...backOff, failingSince: 2_000, retryAt: 9_000 });
    expect((await loadPushState(pool, "bridge"))?.backOff).toEqual({ ...backOff, retryAt: 9_000 });
    await endPushBackOff(pool, "bridge");
    expect((await loadPushState(pool, "bridge"))?.backOff).toBeUndefined();
    await beginPush(pool, "bridge", start, { ...push, upTo: start });
    await storePushBackOff(pool, "bridge", backOff);
    await endPush(pool, "bridge", "one");
    expect((await loadPushState(pool, "bridge"))?.backOff).toBeUndefined();
  });

  it("is where a service stays that is introduced again", async () => {
    await introduceAppservice(pool, "bridge");
    await arrive();
    await introduceAppservice(pool, "bridge");
    expect((await loadPushState(pool, "bridge"))?.place).toEqual(start);
  });
});
