import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { partialEventIds } from "../../../src/storage/partial-state.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import {
  countRequests,
  enterAs,
  expectAllThere,
  handleWaiting,
  idsOf,
  shuffled,
  STANDINGS,
  unsent,
} from "../../support/gap-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const quiet = { push: false };

describe.each(STANDINGS)("a gap in a room whose state is %s", (standing) => {
  it("is filled as a whole by one request", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const gap = await unsent(scene, entered, 5);

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after the gap");

    expect(asks()).toBe(1);
    await expectAllThere(scene, entered, [...idsOf(gap), eventId], standing);
  });

  it("is followed page by page where it is longer than an answer", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const gap = await unsent(scene, entered, 45);

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after the gap");

    expect(asks()).toBe(3);
    await expectAllThere(scene, entered, [...idsOf(gap), eventId], standing);
  });

  it("is filled where one of two prev_events is known", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const tip = { prevEvents: [...entered.room.extremities] };
    const known = await resident.sendMessage(entered.room, resident.founder, "known", tip);
    const topic = { type: "m.room.topic", content: { topic: "missing" } };
    const missing = await resident.sendState(entered.room, topic, { ...tip, ...quiet });

    const { eventId, event } = await resident.sendMessage(entered.room, resident.founder, "after half a gap");

    expect(new Set(event.pdu.prev_events)).toEqual(new Set([known.eventId, missing.eventId]));
    expect(asks()).toBe(1);
    await expectAllThere(scene, entered, [known.eventId, missing.eventId, eventId], standing);
  });

  it("leaves an event partial exactly if the known one of its prev_events is, where the other's state is told", async () => {
    const entered = await enterAs(scene, standing);
    const tip = { prevEvents: [...entered.room.extremities] };
    await resident.sendMessage(entered.room, resident.founder, "known", tip);
    await resident.sendState(
      entered.room,
      { type: "m.room.topic", content: { topic: "missing" } },
      { ...tip, ...quiet },
    );
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after half a gap");
    expect(await countWaitingPdus(database.pool, entered.roomId)).toBe(1);
    await handleWaiting(scene, entered);

    refusing();
    const partial = await partialEventIds(database.pool, [eventId]);
    expect(partial.has(eventId)).toBe(standing === "partial");
    await expectAllThere(scene, entered, [eventId], standing);
  });

  it("is filled behind a gap: grandparents are asked for where an answer ends before them", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const short = resident.trouble({ kind: "lie", lie: "short-gap", most: 1 });
    const gap = await unsent(scene, entered, 3);

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after the gap");

    short();
    expect(asks()).toBe(3);
    await expectAllThere(scene, entered, [...idsOf(gap), eventId], standing);
  });

  it("keeps what had been told of it where the server breaks off, and is asked for again from there", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const gap = await unsent(scene, entered, 45);
    let page = 0;
    const second = (text: string): string => ((page += 1) === 2 ? text.slice(0, text.length / 2) : text);
    const breaking = resident.trouble({ kind: "rewrite", change: second, at: "get_missing_events" });

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after the gap");
    expect(asks()).toBe(2);
    expect(await countWaitingPdus(database.pool, entered.roomId)).toBe(21);
    await handleWaiting(scene, entered);

    breaking();
    expect(asks()).toBe(4);
    await expectAllThere(scene, entered, [...idsOf(gap), eventId], standing);
  });

  it("is closed by the state behind it where it goes on for too long, and what was told of it is kept", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const states = countRequests(resident.front, "state_ids", entered);
    const short = resident.trouble({ kind: "lie", lie: "short-gap", most: 1 });
    const gap = await unsent(scene, entered, 15);

    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "after the gap");
    expect(asks()).toBe(10);
    await handleWaiting(scene, entered);

    short();
    expect(asks()).toBe(10);
    expect(states()).toBe(1);
    await expectAllThere(scene, entered, [...idsOf(gap).slice(-10), eventId], standing);
  });

  it("is asked for once by several events that arrive at the same time", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const gap = await unsent(scene, entered, 5);
    const tip = { prevEvents: [...entered.room.extremities] };
    const after = await unsent(scene, entered, 3, 5);
    const beside = [
      await resident.sendMessage(entered.room, resident.founder, "beside", { ...tip, ...quiet }),
      await resident.sendMessage(entered.room, resident.founder, "beside too", { ...tip, ...quiet }),
    ];
    const pushed = idsOf([...after, ...beside]);

    // The first answer is held until all have come.
    const slow = resident.trouble({ kind: "slow", delayMs: 2_000, at: "get_missing_events" });
    await Promise.all(pushed.map((eventId) => resident.deliver(entered.room, [eventId])));

    slow();
    expect(asks()).toBe(1);
    await expectAllThere(scene, entered, [...idsOf(gap), ...pushed], standing);
  });

  it("is not asked for again by an event that comes later, where the server had nothing of it", async () => {
    const entered = await enterAs(scene, standing);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const empty = resident.trouble({ kind: "lie", lie: "gap", pdus: [] });
    await unsent(scene, entered, 1);
    const tip = { prevEvents: [...entered.room.extremities] };
    const one = await resident.sendMessage(entered.room, resident.founder, "one", tip);
    const other = await resident.sendMessage(entered.room, resident.founder, "other", tip);
    const child = await resident.sendMessage(entered.room, resident.founder, "child of both");

    expect(asks()).toBe(1);
    expect(await countWaitingPdus(database.pool, entered.roomId)).toBe(3);
    await handleWaiting(scene, entered);

    empty();
    expect(asks()).toBe(1);
    await expectAllThere(scene, entered, idsOf([one, other, child]), standing);
  });

  it.each(["served", "refused"])(
    "of a hundred events in a random order ends with all of them, gaps being %s",
    async (way) => {
      const entered = await enterAs(scene, standing);
      const states = countRequests(resident.front, "state_ids", entered);
      const asks = countRequests(resident.front, "get_missing_events", entered);
      if (way === "refused") resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
      const all = idsOf(await unsent(scene, entered, 100));
      const mixed = shuffled(all);
      const results = [];
      for (let start = 0; start < mixed.length; start += 10) {
        results.push(...(await resident.deliver(entered.room, mixed.slice(start, start + 10))));
      }
      resident.clearTrouble();

      const told = results.flatMap((result) => ("body" in result ? [result.body] : []));
      for (const id of all) expect(told).toContainEqual({ pdus: expect.objectContaining({ [id]: {} }) });
      if (way === "served") {
        // One request brings twenty events.
        expect(asks()).toBeLessThanOrEqual(10);
        expect(await countWaitingPdus(database.pool, entered.roomId)).toBe(0);
      }
      await handleWaiting(scene, entered);
      expect(states()).toBe(0);
      await expectAllThere(scene, entered, all, standing);
    },
  );
});

describe("an event whose prev_events are all unknown", () => {
  it("has the state at them fetched, and is full where that is whole", async () => {
    const entered = await enterAs(scene, "partial");
    await unsent(scene, entered, 1);
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    const { eventId } = await resident.sendMessage(entered.room, resident.founder, "out of nowhere");
    expect(await loadEvent(database.pool, eventId)).toBeUndefined();

    await handleWaiting(scene, entered);

    refusing();
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
    expect(await partialEventIds(database.pool, [eventId])).toEqual(new Set());
    await expectAllThere(scene, entered, [eventId], "partial");
  });

  it("waits as long as the state that was told is not whole, and is then accepted on what another tells", async () => {
    const entered = await enterAs(scene, "partial");
    const { room } = entered;
    const [missing] = await unsent(scene, entered, 1);
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    const { eventId } = await resident.sendMessage(room, resident.founder, "out of nowhere");
    const withheld = resident.joinedMembers(room).find((user) => user !== resident.founder);
    const member = resident.fullState(room).get(`m.room.member\u001f${withheld}`);
    if (member === undefined || missing === undefined) throw new Error("the room has no other member");
    resident.withhold(room, member);

    await handleWaiting(scene, entered, 2);
    expect(await loadEvent(database.pool, eventId)).toBeUndefined();
    expect(await countWaitingPdus(database.pool, entered.roomId)).toBe(1);

    resident.reveal(room, member);
    await handleWaiting(scene, entered);
    refusing();
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
    await expectAllThere(scene, entered, [eventId], "partial");
  });
});

describe("an event that waits for its parent", () => {
  it("has its turn as soon as the parent has come, however long its own wait would be", async () => {
    const entered = await enterAs(scene, "partial");
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: ["get_missing_events", "state_ids"] });
    const [parent] = idsOf(await unsent(scene, entered, 1)) as [EventId];
    const child = await resident.sendMessage(entered.room, resident.founder, "child");
    await database.pool.query("UPDATE waiting_pdus SET retry_at = now() + interval '5 minutes'");

    await resident.deliver(entered.room, [parent]);
    await receiveWaitingPdus(sidecar.ctx);

    refusing();
    await expectAllThere(scene, entered, [parent, child.eventId], "partial");
  });
});
