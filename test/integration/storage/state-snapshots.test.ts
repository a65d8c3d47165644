import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { splitStateKey, stateEntries, stateKeyOf, stateSize, type StateKey } from "../../../src/matrix/state.ts";
import { openDatabase, transaction } from "../../../src/storage/database.ts";
import { insertOutliers } from "../../../src/storage/events.ts";
import {
  loadState,
  lookUpInSnapshot,
  lookUpManyInSnapshot,
  rememberState,
  rememberWholeState,
  snapshotMembers,
  stateAtHand,
  storeSnapshot,
} from "../../../src/storage/state-snapshots.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aMemberEvent, anEvent, aStoredRoom } from "../../support/stored-room.ts";
import { runs } from "../../support/fuzz.ts";

const database = await openTestDatabase();

type Changes = ReadonlyMap<StateKey, EventId | null>;

function memberChanges(from: number, count: number): Map<StateKey, EventId> {
  return new Map(
    Array.from({ length: count }, (_, index) => [
      stateKeyOf("m.room.member", `@user${from + index}:example.org`),
      `$member${from + index}`,
    ]),
  );
}

async function store(roomId: `!${string}`, parentId: bigint | null, changes: Changes): Promise<bigint> {
  return transaction(database, (tx) => storeSnapshot(tx, roomId, { parentId, changes }));
}

async function countRows(): Promise<number> {
  const result = await database.pool.query<{ count: number }>(
    "SELECT count(*)::integer AS count FROM state_snapshot_entries",
  );
  return result.rows[0]?.count ?? 0;
}

async function chainOf(snapshotId: bigint): Promise<readonly number[]> {
  const result = await database.pool.query<{ entry_count: number }>(
    `WITH RECURSIVE chain AS (
       SELECT *, 0 AS depth FROM state_snapshots WHERE snapshot_id = $1
       UNION ALL SELECT s.*, depth + 1 FROM chain JOIN state_snapshots s ON s.snapshot_id = chain.parent_id)
     SELECT entry_count FROM chain ORDER BY depth`,
    [snapshotId],
  );
  return result.rows.map((row) => row.entry_count);
}

describe("storeSnapshot", () => {
  it("writes one row for one state event more over 100,000 entries", async () => {
    const roomId = await aStoredRoom(database);
    const base = await store(roomId, null, memberChanges(0, 100_000));
    const before = await countRows();
    const next = await store(roomId, base, new Map([[stateKeyOf("m.room.topic", ""), "$topic"]]));
    expect((await countRows()) - before).toBe(1);
    expect(stateSize(await loadState(database, next))).toBe(100_001);
    expect(await lookUpInSnapshot(database.pool, next, "m.room.member", "@user7:example.org")).toBe("$member7");
    expect(await lookUpInSnapshot(database.pool, next, "m.room.topic", "")).toBe("$topic");
  });

  it("writes a handful of rows a change on average, in a chain of at most log2 links", async () => {
    const roomId = await aStoredRoom(database);
    let id = await store(roomId, null, memberChanges(0, 2_000));
    const before = await countRows();
    const steps = 500;
    let longest = 0;
    for (let step = 0; step < steps; step += 1) {
      id = await store(roomId, id, memberChanges(10_000 + step, 1));
      const sizes = await chainOf(id);
      longest = Math.max(longest, sizes.length);
      for (let link = 1; link < sizes.length; link += 1) {
        expect(sizes[link]).toBeGreaterThanOrEqual(2 * (sizes[link - 1] ?? 0));
      }
    }
    expect(longest).toBeLessThanOrEqual(1 + Math.ceil(Math.log2(steps)));
    expect((await countRows()) - before).toBeLessThan(steps * Math.log2(steps));
    expect(stateSize(await loadState(database, id))).toBe(2_500);
  });

  it("gives the parent back when nothing changes", async () => {
    const roomId = await aStoredRoom(database);
    const parent = await store(roomId, null, memberChanges(0, 3));
    expect(await store(roomId, parent, new Map())).toBe(parent);
  });

  it("stores an empty state", async () => {
    const roomId = await aStoredRoom(database);
    const empty = await store(roomId, null, new Map());
    expect(stateSize(await loadState(database, empty))).toBe(0);
    expect(await lookUpInSnapshot(database.pool, empty, "m.room.create", "")).toBeUndefined();
  });

  it("keeps no row for a key that is taken away, where nothing is left below to take it from", async () => {
    const roomId = await aStoredRoom(database);
    const parent = await store(roomId, null, memberChanges(0, 1));
    const gone = new Map<StateKey, EventId | null>([...memberChanges(0, 2).keys()].map((key) => [key, null]));
    const before = await countRows();
    const id = await store(roomId, parent, gone);
    expect(await chainOf(id)).toEqual([0]);
    expect(await countRows()).toBe(before);
  });

  it("equals a plain map whatever is changed and taken away, from any earlier snapshot", async () => {
    const roomId = await aStoredRoom(database);
    const key = fc.constantFrom(
      ...Array.from({ length: 12 }, (_, index) => stateKeyOf(`t${index % 3}\u001f`, `k${index}`)),
    );
    const change = fc.tuple(key, fc.option(fc.integer({ min: 0, max: 5 }), { nil: null, freq: 3 }));
    const step = fc.record({ changes: fc.array(change, { maxLength: 8 }), parent: fc.nat() });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 14 }), async (steps) => {
        const stored: { id: bigint; expected: ReadonlyMap<StateKey, EventId> }[] = [];
        for (const { changes, parent } of steps) {
          const from = stored[parent % (stored.length + 1)];
          const changed = new Map(changes.map(([k, n]) => [k, n === null ? null : (`$${n}` as EventId)]));
          const id = await store(roomId, from?.id ?? null, changed);
          stored.push({ id, expected: applied(from?.expected, changed) });
        }
        const fresh = openDatabase(database.url, { connections: 1 });
        try {
          for (const { id, expected } of stored.toReversed()) {
            expect(new Map(stateEntries(await loadState(fresh, id)))).toEqual(expected);
            const keys = [...expected.keys(), stateKeyOf("t9", "absent")].map(splitStateKey);
            expect(await lookUpManyInSnapshot(fresh.pool, id, keys)).toEqual(expected);
            const sizes = await chainOf(id);
            for (let link = 1; link < sizes.length; link += 1) {
              expect(sizes[link]).toBeGreaterThanOrEqual(2 * (sizes[link - 1] ?? 0));
            }
          }
        } finally {
          await fresh.close();
        }
      }),
      runs(25),
    );
  });
});

function applied(from: ReadonlyMap<StateKey, EventId> | undefined, changes: Changes): ReadonlyMap<StateKey, EventId> {
  const result = new Map(from);
  for (const [key, id] of changes) {
    if (id === null) result.delete(key);
    else result.set(key, id);
  }
  return result;
}

describe("loadState", () => {
  it("shares one base map between snapshots of one ancestor", async () => {
    const roomId = await aStoredRoom(database);
    const base = await store(roomId, null, memberChanges(0, 500));
    const left = await store(roomId, base, new Map([[stateKeyOf("m.room.topic", ""), "$left"]]));
    const right = await store(roomId, base, new Map([[stateKeyOf("m.room.topic", ""), "$right"]]));
    const [a, b] = [await loadState(database, left), await loadState(database, right)];
    expect(a.base).toBe(b.base);
    expect(a.base.size).toBe(500);
  });

  it("reads all of a large state, whatever its keys and however many they are", async () => {
    const roomId = await aStoredRoom(database);
    for (const count of [9_996, 10_001]) {
      const odd = ["", "Ä", "a\u001f", "\u{1f600}"].map((type) => [stateKeyOf(type, type), "$odd"] as const);
      const whole = new Map<StateKey, EventId>([...memberChanges(0, count), ...odd]);
      const root = await store(roomId, null, whole);
      const gone = new Map([[stateKeyOf("m.room.member", "@user7:example.org"), null]]);
      const id = await store(roomId, root, gone);
      const state = await loadState(database, id);
      for (const key of gone.keys()) whole.delete(key);
      expect(new Map(stateEntries(state))).toEqual(whole);
    }
  });

  it("gives the same object again", async () => {
    const roomId = await aStoredRoom(database);
    const id = await store(roomId, null, memberChanges(0, 5));
    expect(await loadState(database, id)).toBe(await loadState(database, id));
  });

  it("reads what its own transaction has not committed yet", async () => {
    const roomId = await aStoredRoom(database);
    await transaction(database, async (tx) => {
      const id = await storeSnapshot(tx, roomId, { parentId: null, changes: memberChanges(0, 5) });
      expect(stateSize(await loadState(database, id, tx))).toBe(5);
    });
  });

  it("keeps no state of a transaction that came to nothing, whose ids are given again after a crash", async () => {
    const roomId = await aStoredRoom(database);
    const base = await store(roomId, null, memberChanges(0, 5));
    const parent = await loadState(database, base);
    const topic = new Map([[stateKeyOf("m.room.topic", ""), "$lost"]] as const);
    let [top, root, whole] = [0n, 0n, 0n];
    const lost = transaction(database, async (tx) => {
      top = await storeSnapshot(tx, roomId, { parentId: base, changes: topic });
      rememberState({ database, tx }, top, parent, topic);
      root = await storeSnapshot(tx, roomId, { parentId: null, changes: memberChanges(0, 7) });
      await loadState(database, root, tx);
      whole = await storeSnapshot(tx, roomId, { parentId: null, changes: topic });
      rememberWholeState({ database, tx }, whole, await loadState(database, root, tx));
      expect([stateAtHand(database, top), stateAtHand(database, root)]).toEqual([undefined, undefined]);
      throw new Error("the connection is lost");
    });
    await expect(lost).rejects.toThrow("the connection is lost");
    // What was not flushed to the log is forgotten, the sequence's steps too.
    await database.pool.query("SELECT setval(pg_get_serial_sequence('state_snapshots', 'snapshot_id'), $1)", [base]);
    const again: bigint[] = [];
    for (const count of [1, 2, 3]) again.push(await store(roomId, null, memberChanges(100, count)));
    expect(again).toEqual([top, root, whole]);
    const sizes = again.map(async (id) => stateSize(await loadState(database, id)));
    expect(await Promise.all(sizes)).toEqual([1, 2, 3]);
  });

  it("has what a transaction has stored and read at hand as soon as it is committed", async () => {
    const roomId = await aStoredRoom(database);
    const [id, state] = await transaction(database, async (tx) => {
      const stored = await storeSnapshot(tx, roomId, { parentId: null, changes: memberChanges(0, 5) });
      return [stored, await loadState(database, stored, tx)] as const;
    });
    expect(stateAtHand(database, id)).toBe(state);
  });

  it("refuses a snapshot that does not exist", async () => {
    await expect(loadState(database, 999_999_999n)).rejects.toThrow("999999999 does not exist");
  });
});

describe("snapshotMembers", () => {
  it("gives the members of the whole chain, each as its newest link has them", async () => {
    const roomId = await aStoredRoom(database);
    const events = [1, 2, 3].map((number) => aMemberEvent(roomId, `$in${number}`, number));
    const left = anEvent(roomId, "$out1", {
      type: "m.room.member",
      state_key: "@user1:server1.example.org",
      content: { membership: "leave" },
    });
    await insertOutliers(
      database.pool,
      [...events, left].map((event) => ({ event, rejection: null })),
    );
    const joined = new Map(
      events.map((event) => [stateKeyOf("m.room.member", event.pdu.state_key ?? ""), event.eventId]),
    );
    const base = await store(roomId, null, joined);
    const next = await store(
      roomId,
      base,
      new Map<StateKey, EventId | null>([
        [stateKeyOf("m.room.member", "@user1:server1.example.org"), "$out1"],
        [stateKeyOf("m.room.member", "@user3:server3.example.org"), null],
      ]),
    );
    const members = await snapshotMembers(database.pool, next);
    expect(members.toSorted((a, b) => (a.userId < b.userId ? -1 : 1))).toEqual([
      { userId: "@user1:server1.example.org", membership: "leave", eventId: "$out1" },
      { userId: "@user2:server2.example.org", membership: "join", eventId: "$in2" },
    ]);
  });
});
