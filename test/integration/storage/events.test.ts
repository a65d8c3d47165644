import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { authChainIds } from "../../../src/storage/auth-chains.ts";
import { transaction } from "../../../src/storage/database.ts";
import { insertOutliers, insertTimelineEvent, loadEvent, loadEvents, whichExist } from "../../../src/storage/events.ts";
import { settlePartialEvents } from "../../../src/storage/partial-state.ts";
import { storeSnapshot } from "../../../src/storage/state-snapshots.ts";
import { currentStreamPosition, takeStreamPositions } from "../../../src/storage/streams.ts";
import { takeBackfillPositions, timeline } from "../../../src/storage/timeline.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aMemberEvent, anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();

describe("insertOutliers", () => {
  it("stores 21,000 events at once, and none of them twice", async () => {
    const roomId = await aStoredRoom(database);
    const events = Array.from({ length: 21_000 }, (_, number) => ({
      event: aMemberEvent(roomId, `$bulk${number}`, number),
      rejection: null,
    }));
    expect(await insertOutliers(database.pool, events)).toBe(21_000);
    expect(await insertOutliers(database.pool, events)).toBe(0);
  });

  it("stores the same events twice at the same time, in whatever order they come", async () => {
    const roomId = await aStoredRoom(database);
    const events = Array.from({ length: 6_000 }, (_, number) => ({
      event: aMemberEvent(roomId, `$both${number}`, number),
      rejection: null,
    }));
    const both = [events, events.toReversed()].map((list) => transaction(database, (tx) => insertOutliers(tx, list)));
    const stored = await Promise.all(both);
    expect(stored.toSorted((a, b) => a - b)).toEqual([0, 6_000]);
  });

  it("keeps every byte of what the wire's JSON says", async () => {
    const roomId = await aStoredRoom(database, "1");
    const text = `{"auth_events":[["$a:example.org",{"sha256":"x"}]],"content":{"big":9007199254740993,"float":1.0,"nul":"\\u0000","quote":"\\"\\\\"},"depth":9223372036854775807,"origin_server_ts":1e3,"prev_events":[["$b,\\"}\\\\:example.org",{}]],"room_id":"${roomId}","sender":"@a:example.org","type":"m.test"}`;
    const pdu = parseJson(text) as Pdu;
    const event = { eventId: "$lossless:example.org" as EventId, roomId, pdu, rejected: false };
    await insertOutliers(database.pool, [{ event, rejection: "some.rule: refused" }]);
    const stored = await loadEvent(database.pool, event.eventId);
    expect(stringifyJson(stored?.pdu ?? null)).toBe(text);
    expect(stored).toMatchObject({ rejected: true, rejection: "some.rule: refused", outlier: true, streamId: null });
    const columns = await database.pool.query(
      "SELECT depth, origin_server_ts, prev_event_ids, auth_event_ids FROM events WHERE event_id = $1",
      [event.eventId],
    );
    expect(columns.rows[0]).toEqual({
      depth: "9223372036854775807",
      origin_server_ts: "1000",
      prev_event_ids: ['$b,"}\\:example.org'],
      auth_event_ids: ["$a:example.org"],
    });
  });

  it("notes the membership of member events only, and only one that there is", async () => {
    const roomId = await aStoredRoom(database);
    const make = (id: EventId, type: string, membership: string) => ({
      event: anEvent(roomId, id, { type, state_key: "@a:b", content: { membership } }),
      rejection: null,
    });
    await insertOutliers(database.pool, [
      make("$m1", "m.room.member", "ban"),
      make("$m2", "m.room.member", "jo\u0000in"),
      make("$m3", "m.room.other", "join"),
    ]);
    const rows = await database.pool.query(
      "SELECT event_id, membership FROM events WHERE event_id IN ('$m1', '$m2', '$m3') ORDER BY event_id",
    );
    expect(rows.rows.map((row: { membership: string | null }) => row.membership)).toEqual(["ban", null, null]);
  });
});

describe("insertTimelineEvent", () => {
  it("makes a timeline event of an outlier, with the new verdict", async () => {
    const roomId = await aStoredRoom(database);
    const event = anEvent(roomId, "$upgraded");
    await insertOutliers(database.pool, [{ event, rejection: "old" }]);
    const stored = await transaction(database, async (tx) => {
      const snapshot = await storeSnapshot(tx, roomId, { parentId: null, changes: new Map() });
      const streamId = await takeStreamPositions(tx, 1);
      const inserted = await insertTimelineEvent(tx, {
        event,
        rejection: null,
        softFailed: true,
        stateBefore: snapshot,
        stateAfter: snapshot,
        streamId,
      });
      return { inserted, snapshot, streamId };
    });
    expect(stored.inserted).toBe(true);
    expect(await loadEvent(database.pool, "$upgraded")).toEqual({
      ...event,
      outlier: false,
      softFailed: true,
      rejection: null,
      streamId: stored.streamId,
      stateBefore: stored.snapshot,
      stateAfter: stored.snapshot,
    });
  });

  it("leaves a timeline event as it is", async () => {
    const roomId = await aStoredRoom(database);
    const event = anEvent(roomId, "$once");
    const first = await storeInTimeline(database, event);
    const again = await transaction(database, async (tx) => {
      const streamId = await takeStreamPositions(tx, 1);
      return insertTimelineEvent(tx, {
        event,
        rejection: "later",
        softFailed: true,
        stateBefore: null,
        stateAfter: null,
        streamId,
      });
    });
    expect(again).toBe(false);
    expect(await loadEvent(database.pool, "$once")).toMatchObject({ streamId: first, rejection: null });
  });
});

describe("loadEvents and whichExist", () => {
  it("give what is there and leave out what isn't", async () => {
    const roomId = await aStoredRoom(database);
    await insertOutliers(database.pool, [{ event: anEvent(roomId, "$there"), rejection: null }]);
    expect([...(await loadEvents(database.pool, ["$there", "$nowhere"])).keys()]).toEqual(["$there"]);
    expect(await whichExist(database.pool, ["$there", "$nowhere"])).toEqual(new Set(["$there"]));
    expect(await loadEvent(database.pool, "$nowhere")).toBeUndefined();
  });
});

describe("settlePartialEvents", () => {
  it("moves the pointers and turns the verdict", async () => {
    const roomId = await aStoredRoom(database);
    await storeInTimeline(database, anEvent(roomId, "$repaired"));
    const id = await transaction(database, async (tx) => {
      const snapshot = await storeSnapshot(tx, roomId, { parentId: null, changes: new Map() });
      const verdict = { stateBefore: snapshot, stateAfter: snapshot, rejection: "now" };
      await settlePartialEvents(tx, [{ eventId: "$repaired", ...verdict }]);
      return snapshot;
    });
    expect(await loadEvent(database.pool, "$repaired")).toMatchObject({
      stateBefore: id,
      stateAfter: id,
      rejection: "now",
      rejected: true,
    });
  });
});

describe("authChainIds", () => {
  it("walks a chain once, however many paths lead through it, over what is missing too", async () => {
    const roomId = await aStoredRoom(database);
    // A ladder of diamonds: 2^40 paths.
    const events = Array.from({ length: 40 }, (_, rung) => {
      const below: EventId[] = rung === 0 ? ["$missing"] : [`$l${rung - 1}`, `$r${rung - 1}`];
      return ["l", "r"].map((side) => anEvent(roomId, `$${side}${rung}`, { auth_events: below }));
    }).flat();
    await insertOutliers(
      database.pool,
      events.map((event) => ({ event, rejection: null })),
    );
    const chain = await authChainIds(database.pool, ["$l39", "$l38"]);
    expect(chain).toHaveLength(78);
    expect(chain).toContain("$l38");
    expect(chain).not.toContain("$l39");
  });
});

describe("timeline", () => {
  it("reads both ways between positions, without what clients may not see", async () => {
    const roomId = await aStoredRoom(database);
    const positions: bigint[] = [];
    for (const name of ["a", "b", "c", "d"] as const) {
      positions.push(await storeInTimeline(database, anEvent(roomId, `$t${name}`)));
    }
    await database.pool.query("UPDATE events SET rejection = 'no' WHERE event_id = '$tc'");
    await insertOutliers(database.pool, [{ event: anEvent(roomId, "$outlier"), rejection: null }]);
    const read = async (range: Omit<Parameters<typeof timeline>[2], "limit">, limit = 10) =>
      (await timeline(database.pool, roomId, { ...range, limit })).map((event) => event.eventId);
    const [first, second] = positions;
    expect(await read({ direction: "forward" })).toEqual(["$ta", "$tb", "$td"]);
    expect(await read({ direction: "forward", from: first })).toEqual(["$tb", "$td"]);
    expect(await read({ direction: "backward", from: second })).toEqual(["$tb", "$ta"]);
    expect(await read({ direction: "backward", to: first })).toEqual(["$td", "$tb"]);
    expect(await read({ direction: "backward" }, 1)).toEqual(["$td"]);
    expect(await read({ direction: "forward", hidden: true })).toEqual(["$ta", "$tb", "$tc", "$td"]);
  });

  it("puts history that is fetched backwards before everything", async () => {
    const roomId = await aStoredRoom(database);
    await storeInTimeline(database, anEvent(roomId, "$now"));
    const before = await currentStreamPosition(database.pool);
    await transaction(database, async (tx) => {
      const positions = await takeBackfillPositions(tx, 2);
      const old = [anEvent(roomId, "$older"), anEvent(roomId, "$oldest")];
      for (const [index, event] of old.entries()) {
        const streamId = positions[index] ?? 0n;
        const verdict = { rejection: null, softFailed: false, stateBefore: null, stateAfter: null };
        await insertTimelineEvent(tx, { event, streamId, ...verdict });
      }
    });
    const events = await timeline(database.pool, roomId, { direction: "backward", limit: 10 });
    expect(events.map((event) => event.eventId)).toEqual(["$now", "$older", "$oldest"]);
    expect(events[2]?.streamId).toBeLessThan(0n);
    expect(await currentStreamPosition(database.pool)).toBe(before);
  });
});
