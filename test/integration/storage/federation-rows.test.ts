import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import {
  clientTransactionEvent,
  clientTransactionIds,
  forgetClientTransactions,
  storeClientTransaction,
} from "../../../src/storage/client-transactions.ts";
import { transaction } from "../../../src/storage/database.ts";
import { clearBackOff, listBackOffs, loadBackOff, storeBackOff } from "../../../src/storage/destinations.ts";
import {
  deleteChunkOfEarlyOutliers,
  deleteEarlyOutliers,
  forgetEarlyOutliersOfEnteredRooms,
  noteEarlyOutliers,
} from "../../../src/storage/early-outliers.ts";
import { insertOutliers, whichExist } from "../../../src/storage/events.ts";
import { loadInviteRoomStates, serversThatToldOf, storeInviteRoomState } from "../../../src/storage/invites.ts";
import { beginJoin, endJoin, forgetStaleJoins, isJoinUnderWay } from "../../../src/storage/joins-under-way.ts";
import {
  addToOutbox,
  deleteOutboxBatch,
  keepNewestInOutbox,
  nextOutboxBatch,
  outboxDestinations,
} from "../../../src/storage/outbox.ts";
import {
  forgetReceivedTransactions,
  receivedTransaction,
  storeReceivedTransaction,
} from "../../../src/storage/received-transactions.ts";
import { loadServerKeys, storeServerKeys } from "../../../src/storage/server-keys.ts";
import { setCurrentSnapshot } from "../../../src/storage/rooms.ts";
import { storeSnapshot } from "../../../src/storage/state-snapshots.ts";
import { appendLocalMembership } from "../../../src/storage/streams.ts";
import {
  addWaitingPdu,
  countWaitingPdus,
  deleteWaitingPdu,
  dueWaitingPdus,
  postponeWaitingPdu,
  waitingPdusOf,
} from "../../../src/storage/waiting-pdus.ts";
import { openTestDatabase } from "../../support/database.ts";
import { holdAtStatement, untilWaiting } from "../../support/hold-point.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();
const { pool } = database;

async function queue(roomId: RoomId, eventId: EventId, destinations: readonly string[]): Promise<void> {
  const streamId = await storeInTimeline(database, anEvent(roomId, eventId));
  await addToOutbox(pool, { eventId, streamId, destinations });
}

describe("nextOutboxBatch", () => {
  it("repeats what was not acknowledged, under the same id, before anything new", async () => {
    const roomId = await aStoredRoom(database);
    for (const id of ["$o1", "$o2", "$o3"] as const) await queue(roomId, id, ["b.org", "a.org"]);
    const next = async (newTxnId: string) => {
      const batch = await nextOutboxBatch(pool, "a.org", { newTxnId, limit: 2 });
      return batch && [batch.txnId, ...batch.events.map((event) => event.eventId)];
    };
    expect(await outboxDestinations(pool)).toEqual(["a.org", "b.org"]);
    expect(await next("t1")).toEqual(["t1", "$o1", "$o2"]);
    await queue(roomId, "$o4", ["a.org"]);
    expect(await next("t2")).toEqual(["t1", "$o1", "$o2"]);
    await deleteOutboxBatch(pool, "a.org", "t1");
    expect(await next("t3")).toEqual(["t3", "$o3", "$o4"]);
    await deleteOutboxBatch(pool, "a.org", "t3");
    expect(await next("t4")).toBeUndefined();
    expect(await outboxDestinations(pool)).toEqual(["b.org"]);
    const theirs = await nextOutboxBatch(pool, "b.org", { newTxnId: "t5", limit: 50 });
    expect(theirs?.events).toHaveLength(3);
  });

  it("leaves a server that has fallen behind the newest event of each room", async () => {
    const [one, two] = [await aStoredRoom(database), await aStoredRoom(database)];
    await queue(one, "$n1", ["far.org"]);
    await queue(two, "$n2", ["far.org"]);
    await queue(one, "$n3", ["far.org"]);
    expect(await keepNewestInOutbox(pool, "far.org")).toBe(1);
    const batch = await nextOutboxBatch(pool, "far.org", { newTxnId: "t", limit: 50 });
    expect(batch?.events.map((event) => event.eventId)).toEqual(["$n2", "$n3"]);
  });
});

describe("storeBackOff", () => {
  it("keeps the time of the first failure until the server answers", async () => {
    const failure = {
      serverName: "down.org",
      failingSince: 1_000,
      retryAt: 2_000,
      retryIntervalMs: 1_000,
      lastError: "a",
    };
    await storeBackOff(pool, failure);
    await storeBackOff(pool, {
      ...failure,
      failingSince: 5_000,
      retryAt: 9_000,
      retryIntervalMs: 4_000.4,
      lastError: "b",
    });
    const expected = { ...failure, retryAt: 9_000, retryIntervalMs: 4_000, lastError: "b" };
    expect(await loadBackOff(pool, "down.org")).toEqual(expected);
    expect(await listBackOffs(pool)).toEqual([expected]);
    expect(await clearBackOff(pool, "down.org")).toBe(true);
    expect(await clearBackOff(pool, "down.org")).toBe(false);
    expect(await loadBackOff(pool, "down.org")).toBeUndefined();
  });
});

describe("addWaitingPdu", () => {
  it("keeps a PDU as it came, until it is handled", async () => {
    const text = '{"depth":9007199254740993,"x":1.0}';
    const roomId = "!waiting:example.org" as const;
    const wait = (eventId: EventId, receivedAt: number, reason: "join-under-way" | "missing-prev-events") =>
      addWaitingPdu(pool, { eventId, roomId, origin: "a.org", pdu: parseJson(text), reason, receivedAt });
    await wait("$w2", 2_000, "missing-prev-events");
    await wait("$w1", 1_000, "join-under-way");
    await wait("$w1", 9_000, "join-under-way");
    const all = await waitingPdusOf(pool, roomId);
    expect(all.map((waiting) => [waiting.eventId, waiting.receivedAt])).toEqual([
      ["$w1", 1_000],
      ["$w2", 2_000],
    ]);
    expect(stringifyJson(all[0]?.pdu ?? null)).toBe(text);
    expect(await waitingPdusOf(pool, roomId, { reason: "join-under-way" })).toHaveLength(1);
    expect(await waitingPdusOf(pool, roomId, { limit: 1 })).toHaveLength(1);
    await postponeWaitingPdu(pool, "$w1", { attempts: 1, retryAt: 5_000 });
    expect((await dueWaitingPdus(pool, { now: 4_999, limit: 10 })).map((due) => due.eventId)).toEqual(["$w2"]);
    const due = await dueWaitingPdus(pool, { now: 5_000, limit: 10 });
    expect(due.map(({ eventId, attempts }) => [eventId, attempts])).toEqual([
      ["$w1", 1],
      ["$w2", 0],
    ]);
    // That could not be said but by a clock that was an hour ahead.
    await postponeWaitingPdu(pool, "$w1", { attempts: 1, retryAt: 3_605_000 });
    const dueOfLongest = await dueWaitingPdus(pool, { now: 5_000, limit: 10, longestMs: 300_000 });
    expect(dueOfLongest.map(({ eventId }) => eventId)).toEqual(["$w1", "$w2"]);
    const longest = { now: 5_000, limit: 10, longestMs: 3_600_000 };
    expect((await dueWaitingPdus(pool, longest)).map(({ eventId }) => eventId)).toEqual(["$w2"]);
    await deleteWaitingPdu(pool, "$w2");
    expect(await countWaitingPdus(pool, roomId)).toBe(1);
  });
});

describe("beginJoin", () => {
  it("counts until the join has ended, or is found stale", async () => {
    const roomId = "!joining:example.org" as const;
    await beginJoin(pool, { roomId, userId: "@a:b", attempt: "1", since: 1_000 });
    await beginJoin(pool, { roomId, userId: "@c:d", attempt: "1", since: 2_000 });
    expect(await isJoinUnderWay(pool, roomId)).toBe(true);
    await endJoin(pool, { roomId, userId: "@a:b", attempt: "1" });
    expect(await isJoinUnderWay(pool, roomId)).toBe(true);
    await forgetStaleJoins(pool, 2_000);
    expect(await isJoinUnderWay(pool, roomId)).toBe(true);
    await forgetStaleJoins(pool, 2_001);
    expect(await isJoinUnderWay(pool, roomId)).toBe(false);
  });
});

describe("deleteEarlyOutliers", () => {
  async function aRoomWithEarlyOutliers(ids: readonly EventId[]): Promise<RoomId> {
    const roomId = await aStoredRoom(database);
    await insertOutliers(
      pool,
      ids.map((id) => ({ event: anEvent(roomId, id), rejection: null })),
    );
    await noteEarlyOutliers(pool, roomId, ids);
    return roomId;
  }
  const deleteOnce = (): Promise<boolean> => deleteEarlyOutliers(database);
  const left = async (ids: readonly EventId[]): Promise<ReadonlySet<EventId>> => await whichExist(pool, ids);

  it("deletes a chunk at a time, and then finds nothing", async () => {
    const ids = Array.from({ length: 1_200 }, (_none, index): EventId => `$early${index}`);
    await aRoomWithEarlyOutliers(ids);
    expect(await deleteOnce()).toBe(true);
    const { size } = await left(ids);
    expect(size).toBeGreaterThan(600);
    expect(size).toBeLessThan(1_200);
    while (await deleteOnce()) expect((await left(ids)).size).toBeLessThan(size);
    expect((await left(ids)).size).toBe(0);
  });

  it("takes no chunk of a room that was entered: its notes go together, and it keeps its events", async () => {
    const ids = Array.from({ length: 1_200 }, (_none, index): EventId => `$entered${index}`);
    const roomId = await aRoomWithEarlyOutliers(ids);
    const snapshotId = await storeSnapshot(pool, roomId, { parentId: null, changes: new Map() });
    await setCurrentSnapshot(pool, roomId, snapshotId);
    await forgetEarlyOutliersOfEnteredRooms(pool);
    expect(await deleteOnce()).toBe(false);
    expect((await left(ids)).size).toBe(1_200);
  });

  it("keeps what tells of a user of ours, and what has its place in the timeline", async () => {
    const roomId = await aRoomWithEarlyOutliers(["$early-invite", "$early-placed", "$early-other"]);
    const invite = { userId: "@u:example.org", roomId, membership: "invite", eventId: "$early-invite" } as const;
    await appendLocalMembership(pool, { ...invite, streamId: 900_000n });
    await storeInTimeline(database, anEvent(roomId, "$early-placed"));
    expect(await deleteOnce()).toBe(true);
    expect(await left(["$early-invite", "$early-placed", "$early-other"])).toEqual(
      new Set(["$early-invite", "$early-placed"]),
    );
  });

  it("deletes nothing of a room with a join under way, and is waited for by one that begins", async () => {
    const roomId = await aRoomWithEarlyOutliers(["$early-a"]);
    const join = { roomId, userId: "@u:example.org", attempt: "1", since: 0 } as const;
    const order: string[] = [];
    let begun: Promise<unknown> | undefined;
    await transaction(database, async (tx) => {
      expect(await deleteChunkOfEarlyOutliers(tx)).toBe(true);
      begun = beginJoin(pool, join).then(() => order.push("begun"));
      await untilWaiting(database, /FROM early_outliers WHERE room_id = \$1 FOR KEY SHARE/);
      order.push("deleted");
    });
    await begun;
    expect(order).toEqual(["deleted", "begun"]);
    await insertOutliers(pool, [{ event: anEvent(roomId, "$early-a"), rejection: null }]);
    await noteEarlyOutliers(pool, roomId, ["$early-a"]);
    expect(await deleteOnce()).toBe(false);
    expect(await left(["$early-a"])).toEqual(new Set(["$early-a"]));
    await endJoin(pool, join);
    expect(await deleteOnce()).toBe(true);
    expect((await left(["$early-a"])).size).toBe(0);
  });

  it("leaves all as it was where a join began since it took the chunk", async () => {
    const roomId = await aRoomWithEarlyOutliers(["$early-b"]);
    const join = { roomId, userId: "@u:example.org", attempt: "1", since: 0 } as const;
    const held = holdAtStatement(database, /WITH failed AS/);
    const deleting = deleteEarlyOutliers(held.database);
    await held.reached;
    const beginning = beginJoin(pool, join);
    await untilWaiting(database, /FROM early_outliers WHERE room_id = \$1 FOR KEY SHARE/);
    held.release();
    await Promise.all([deleting, beginning]);
    expect(await left(["$early-b"])).toEqual(new Set(["$early-b"]));
    await endJoin(pool, join);
    expect(await deleteOnce()).toBe(true);
    expect((await left(["$early-b"])).size).toBe(0);
  });

  it("leaves the note with its events where it dies, for the next to go on", async () => {
    await aRoomWithEarlyOutliers(["$early-c"]);
    const held = holdAtStatement(database, /WITH failed AS/, { after: true });
    const deleting = deleteEarlyOutliers(held.database);
    await held.reached;
    await pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND state = 'idle in transaction'`,
    );
    held.release();
    await expect(deleting).rejects.toMatchObject({ name: "DatabaseUnavailable" });
    expect(await left(["$early-c"])).toEqual(new Set(["$early-c"]));
    expect(await deleteOnce()).toBe(true);
    expect((await left(["$early-c"])).size).toBe(0);
  });
});

describe("storeReceivedTransaction", () => {
  it("gives the first answer again", async () => {
    const received = { origin: "a.org", txnId: "1", response: { pdus: { $a: {} } } };
    expect(await storeReceivedTransaction(pool, received)).toEqual(received.response);
    expect(await storeReceivedTransaction(pool, { ...received, response: {} })).toEqual(received.response);
    expect(await receivedTransaction(pool, "a.org", "1")).toEqual(received.response);
    expect(await receivedTransaction(pool, "b.org", "1")).toBeUndefined();
    expect(await forgetReceivedTransactions(pool, Date.now() + 60_000)).toBe(1);
  });
});

describe("storeServerKeys", () => {
  it("remembers the newest of each key", async () => {
    const key = { serverName: "a.org", keyId: "ed25519:1", publicKey: "AAAA", fetchedAt: 5_000 } as const;
    await storeServerKeys(pool, [
      { ...key, validUntilTs: 2 ** 52 },
      { ...key, keyId: "ed25519:old", validUntilTs: 0, expiredTs: 1_000 },
      { ...key, serverName: "b.org", validUntilTs: 1 },
    ]);
    await storeServerKeys(pool, [{ ...key, validUntilTs: 7 }]);
    const keys = await loadServerKeys(pool, ["a.org", "c.org"]);
    expect(keys.toSorted((a, b) => (a.keyId < b.keyId ? -1 : 1))).toEqual([
      { ...key, validUntilTs: 7 },
      { ...key, keyId: "ed25519:old", validUntilTs: 0, expiredTs: 1_000 },
    ]);
  });

  it("lets two writers of the same keys pass each other", async () => {
    const keys = Array.from({ length: 200 }, (_, index) => ({
      serverName: `s${index}.org`,
      keyId: "ed25519:1" as const,
      publicKey: "AAAA",
      validUntilTs: 1,
      fetchedAt: 1,
    }));
    const writers = Array.from({ length: 8 }, (_, index) =>
      storeServerKeys(pool, index % 2 ? keys : keys.toReversed()),
    );
    await expect(Promise.all(writers)).resolves.toHaveLength(8);
  });
});

describe("storeClientTransaction", () => {
  it("knows a repeated request of the same device", async () => {
    const key = { userId: "@a:b", deviceId: "D", txnId: "1" } as const;
    await storeClientTransaction(pool, key, "$sent");
    expect(await clientTransactionEvent(pool, key)).toBe("$sent");
    expect(await clientTransactionEvent(pool, { ...key, deviceId: "E" })).toBeUndefined();
    expect(await clientTransactionIds(pool, key, ["$sent", "$other"])).toEqual(new Map([["$sent", "1"]]));
    await expect(storeClientTransaction(pool, key, "$again")).rejects.toMatchObject({ code: "unique" });
    expect(await forgetClientTransactions(pool, Date.now() + 60_000)).toBe(1);
  });
});

describe("storeInviteRoomState", () => {
  it("keeps what an invitation tells of its room", async () => {
    const strippedState = [{ type: "m.room.name", content: { name: "A" } }];
    await storeInviteRoomState(pool, "$invite", { strippedState, toldBy: ["one.example", "two.example"] });
    const states = await loadInviteRoomStates(pool, ["$invite", "$other"]);
    expect(states).toEqual(new Map([["$invite", strippedState]]));
    expect(await serversThatToldOf(pool, "$invite")).toEqual(["one.example", "two.example"]);
    expect(await serversThatToldOf(pool, "$other")).toEqual([]);
  });
});
