import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { transaction } from "../../../src/storage/database.ts";
import { insertOutliers } from "../../../src/storage/events.ts";
import { storeInviteRoomState } from "../../../src/storage/invites.ts";
import { beginJoin } from "../../../src/storage/joins-under-way.ts";
import {
  applyMembershipChanges,
  joinedRooms,
  joinedServers,
  localJoinedUsers,
  members,
  membershipOf,
  type MembershipChange,
} from "../../../src/storage/memberships.ts";
import { addToOutbox } from "../../../src/storage/outbox.ts";
import { addPartialRoomServers, insertPartialRoom, markPartial } from "../../../src/storage/partial-state.ts";
import { purgeRoom } from "../../../src/storage/purge-room.ts";
import { storeResyncControl } from "../../../src/storage/resync-control.ts";
import { saveResyncStateIds } from "../../../src/storage/resync-state-ids.ts";
import { insertAlias } from "../../../src/storage/room-aliases.ts";
import {
  forwardExtremities,
  insertRoom,
  loadRoom,
  lockRoom,
  roomRules,
  setCurrentSnapshot,
  setResolvedOf,
  setForwardExtremities,
} from "../../../src/storage/rooms.ts";
import { storeSnapshot } from "../../../src/storage/state-snapshots.ts";
import {
  appendCurrentStateDeltas,
  appendLocalMembership,
  appendUnPartialStatedEvents,
  appendUnPartialStatedRoom,
} from "../../../src/storage/streams.ts";
import { addWaitingPdu } from "../../../src/storage/waiting-pdus.ts";
import { openTestDatabase } from "../../support/database.ts";
import { rowsNaming, tablesNamingRooms } from "../../support/rows-naming.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();
const { pool } = database;

describe("insertRoom", () => {
  it("notes a room once", async () => {
    const room = { roomId: "!new:example.org", roomVersion: "10" } as const;
    expect(await insertRoom(pool, room)).toBe(true);
    expect(await insertRoom(pool, { ...room, roomVersion: "9" })).toBe(false);
    expect(await loadRoom(pool, room.roomId)).toEqual({ ...room, currentSnapshotId: null, resolvedOf: null });
    expect((await roomRules(pool, room.roomId))?.version).toBe("10");
    expect(await roomRules(pool, "!unknown:example.org")).toBeUndefined();
  });
});

describe("lockRoom", () => {
  it("keeps others out until the transaction ends, but lets rows be written that refer to the room", async () => {
    const roomId = await aStoredRoom(database);
    const order: string[] = [];
    let other: Promise<unknown> | undefined;
    await transaction(database, async (tx) => {
      expect(await lockRoom(tx, roomId)).toEqual({
        roomId,
        roomVersion: "11",
        currentSnapshotId: null,
        resolvedOf: null,
      });
      other = transaction(database, async (second) => {
        await lockRoom(second, roomId);
        order.push("second");
      });
      await insertOutliers(pool, [{ event: anEvent(roomId, "$beside"), rejection: null }]);
      order.push("first");
    });
    await other;
    expect(order).toEqual(["first", "second"]);
    expect(await transaction(database, (tx) => lockRoom(tx, "!unknown:example.org"))).toBeUndefined();
  });
});

describe("setForwardExtremities", () => {
  it("replaces them all", async () => {
    const roomId = await aStoredRoom(database);
    for (const id of ["$e1", "$e2", "$e3"] as const) await storeInTimeline(database, anEvent(roomId, id));
    await setForwardExtremities(pool, roomId, ["$e2", "$e1"]);
    expect(await forwardExtremities(pool, roomId)).toEqual(["$e1", "$e2"]);
    await setForwardExtremities(pool, roomId, ["$e2", "$e3"]);
    expect(await forwardExtremities(pool, roomId)).toEqual(["$e2", "$e3"]);
    await expect(setForwardExtremities(pool, roomId, ["$unknown"])).rejects.toMatchObject({ code: "foreign-key" });
  });
});

describe("setCurrentSnapshot", () => {
  it("points the room at a snapshot", async () => {
    const roomId = await aStoredRoom(database);
    const id = await storeSnapshot(pool, roomId, { parentId: null, changes: new Map() });
    await setCurrentSnapshot(pool, roomId, id);
    expect((await loadRoom(pool, roomId))?.currentSnapshotId).toBe(id);
  });

  it("forgets what the former one was compared with", async () => {
    const roomId = await aStoredRoom(database);
    const id = await storeSnapshot(pool, roomId, { parentId: null, changes: new Map() });
    await setResolvedOf(pool, roomId, "1 2");
    expect((await loadRoom(pool, roomId))?.resolvedOf).toBe("1 2");
    await setCurrentSnapshot(pool, roomId, id);
    expect(await loadRoom(pool, roomId)).toMatchObject({ currentSnapshotId: id, resolvedOf: null });
  });
});

function change(userId: `@${string}`, membership: "join" | "leave" | "ban" | null): MembershipChange {
  const eventId: EventId = `$${membership}${userId}`;
  return { userId, member: membership === null ? null : { membership, eventId } };
}

describe("applyMembershipChanges", () => {
  it("keeps the members by room, user and server", async () => {
    const [roomId, other] = [await aStoredRoom(database), await aStoredRoom(database)];
    await applyMembershipChanges(pool, roomId, [
      change("@a:one.org", "join"),
      change("@b:one.org", "join"),
      change("@c:two.org:8448", "join"),
      change("@d:three.org", "leave"),
    ]);
    await applyMembershipChanges(pool, other, [change("@a:one.org", "join")]);
    expect(await joinedServers(pool, roomId)).toEqual(["one.org", "two.org:8448"]);
    expect(await joinedRooms(pool, "@a:one.org")).toEqual([roomId, other].toSorted());
    expect(await localJoinedUsers(pool, roomId, "one.org")).toEqual(["@a:one.org", "@b:one.org"]);
    await applyMembershipChanges(pool, roomId, [
      change("@a:one.org", "ban"),
      change("@b:one.org", null),
      change("@d:three.org", "join"),
    ]);
    expect(await joinedServers(pool, roomId)).toEqual(["three.org", "two.org:8448"]);
    expect(await joinedRooms(pool, "@a:one.org")).toEqual([other]);
    expect(await membershipOf(pool, roomId, "@a:one.org")).toEqual({
      userId: "@a:one.org",
      membership: "ban",
      eventId: "$ban@a:one.org",
    });
    expect(await membershipOf(pool, roomId, "@b:one.org")).toBeUndefined();
    expect((await members(pool, roomId)).map((member) => member.userId)).toEqual([
      "@a:one.org",
      "@c:two.org:8448",
      "@d:three.org",
    ]);
  });
});

/** A room with a row in every table that knows of rooms. */
async function aFullRoom(name: string): Promise<RoomId> {
  const roomId = await aStoredRoom(database);
  const [join, next]: readonly EventId[] = [`$${name}-join`, `$${name}-next`];
  if (!join || !next) throw new Error("unreachable");
  const streamId = await storeInTimeline(database, anEvent(roomId, join));
  await storeInTimeline(database, anEvent(roomId, next));
  const key = stateKeyOf("m.room.topic", "");
  await transaction(database, async (tx) => {
    const parentId = await storeSnapshot(tx, roomId, {
      parentId: null,
      changes: new Map(["a", "b", "c"].map((n) => [stateKeyOf("t", n), join])),
    });
    const snapshot = await storeSnapshot(tx, roomId, { parentId, changes: new Map([[key, join]]) });
    await setCurrentSnapshot(tx, roomId, snapshot);
    await tx.query("UPDATE events SET state_before = $2, state_after = $2 WHERE event_id = $1", [next, snapshot]);
    await setForwardExtremities(tx, roomId, [next]);
    await applyMembershipChanges(tx, roomId, [change("@u:example.org", "join")]);
    await insertAlias(tx, { alias: `#${name}:example.org`, roomId, creator: "@u:example.org" });
    await insertPartialRoom(tx, { roomId, joinEventId: join, joinedVia: null, deviceListsStreamId: 0n });
    await addPartialRoomServers(tx, roomId, ["a.org"]);
    for (const eventId of [join, next]) await markPartial(tx, roomId, eventId);
    const ids = { eventId: join, serverName: "a.org", stateEventIds: [], authEventIds: [] };
    await saveResyncStateIds(tx, { roomId, ...ids });
    await addToOutbox(tx, { eventId: next, streamId, destinations: ["a.org"] });
    await tx.query(
      "INSERT INTO client_transactions (user_id, device_id, txn_id, event_id) VALUES ('@u:example.org', 'd', $1, $1)",
      [next],
    );
    await tx.query("INSERT INTO redactions (redaction_id, redacts) VALUES ($1, $2)", [next, join]);
    await appendUnPartialStatedRoom(tx, 1_000_000n + streamId, roomId);
    const unPartialStated = { streamId: 1_000_000n + streamId, eventId: join, rejectionStatusChanged: false };
    await appendUnPartialStatedEvents(tx, [unPartialStated]);
    await appendCurrentStateDeltas(tx, { streamId, roomId }, [{ key, eventId: join, previousEventId: null }]);
    const local = { streamId, userId: "@u:example.org", roomId, membership: "join", eventId: join } as const;
    await appendLocalMembership(tx, local);
    await storeInviteRoomState(tx, join, { strippedState: [], toldBy: [] });
    const received = { origin: "a.org", pdu: {}, receivedAt: 0 };
    await addWaitingPdu(tx, { eventId: `$${name}-w`, roomId, reason: "join-under-way", ...received });
    await beginJoin(tx, { roomId, userId: "@u:example.org", attempt: "1", since: 0 });
  });
  await storeResyncControl(database, { roomId, wish: "cancelled", by: "me", at: 0, why: "" });
  await fillOtherTables(roomId, next);
  return roomId;
}

const SOME_VALUE: Readonly<Record<string, unknown>> = {
  text: "x",
  bigint: 1,
  integer: 1,
  boolean: false,
  ARRAY: [],
  jsonb: {},
  "timestamp with time zone": new Date(0),
};

/** A row in each table that names rooms and has none of this room yet, as the catalog says what it must hold. */
async function fillOtherTables(roomId: RoomId, eventId: EventId): Promise<void> {
  const filled = Object.keys(await rowsNaming(database, roomId));
  for (const table of (await tablesNamingRooms(database)).filter((name) => !filled.includes(name))) {
    const { rows } = await pool.query<{ name: string; type: string }>(
      `SELECT column_name AS name, data_type AS type FROM information_schema.columns
       WHERE table_schema = 'public' AND table_name = $1 AND is_nullable = 'NO' AND column_default IS NULL
         AND is_identity = 'NO'`,
      [table],
    );
    const named: Readonly<Record<string, unknown>> = { room_id: roomId, event_id: eventId, change: "soft-failed" };
    const values = rows.map(({ name, type }) => named[name] ?? SOME_VALUE[type]);
    const places = values.map((_value, index) => `$${index + 1}`);
    const columns = rows.map(({ name }) => name);
    await pool.query(`INSERT INTO ${table} (${columns.join(", ")}) VALUES (${places.join(", ")})`, values);
  }
}

async function rowCounts(): Promise<Record<string, number>> {
  const tables = await pool.query<{ name: string }>(
    `SELECT table_name AS name FROM information_schema.tables
     WHERE table_schema = 'public' AND table_name NOT IN ('_prisma_migrations', 'stream_position') ORDER BY 1`,
  );
  const counts: Record<string, number> = {};
  for (const { name } of tables.rows) {
    const result = await pool.query<{ count: number }>(`SELECT count(*)::integer AS count FROM ${name}`);
    counts[name] = result.rows[0]?.count ?? 0;
  }
  return counts;
}

describe("purgeRoom", () => {
  it("leaves nothing of the room and everything of the others", async () => {
    await aFullRoom("stays");
    const before = await rowCounts();
    const roomId = await aFullRoom("goes");
    const between = await rowCounts();
    const touched = Object.keys(before).filter((table) => between[table] !== before[table]);
    expect(touched).toEqual(expect.arrayContaining([...(await tablesNamingRooms(database))]));
    expect(await transaction(database, (tx) => purgeRoom(tx, roomId))).toBe(true);
    expect(await rowCounts()).toEqual(before);
    expect(await transaction(database, (tx) => purgeRoom(tx, roomId))).toBe(false);
  });
});

describe("transaction", () => {
  it("rolls back what throws, and gives its connection back", async () => {
    for (let attempt = 0; attempt < 30; attempt += 1) {
      const failing = transaction(database, async (tx) => {
        await insertRoom(tx, { roomId: "!rolled-back:example.org", roomVersion: "11" });
        throw new TypeError("a bug");
      });
      await expect(failing).rejects.toThrow(TypeError);
    }
    expect(await loadRoom(pool, "!rolled-back:example.org")).toBeUndefined();
    expect(pool.idleCount).toBe(pool.totalCount);
  });

  it("survives the end of its connection, and so does the pool", async () => {
    const broken = transaction(database, async (tx) => {
      await tx.query("SELECT pg_terminate_backend(pg_backend_pid())");
    });
    await expect(broken).rejects.toThrow(/terminat/);
    expect(await transaction(database, (tx) => loadRoom(tx, "!unknown:example.org"))).toBeUndefined();
  });

  it("tells a deadlock by its code", async () => {
    const [one, two] = [await aStoredRoom(database), await aStoredRoom(database)];
    let meet = () => {};
    const both = new Promise<void>((resolve) => {
      let arrived = 0;
      meet = () => {
        arrived += 1;
        if (arrived === 2) resolve();
      };
    });
    const lockBoth = (first: RoomId, second: RoomId) =>
      transaction(database, async (tx) => {
        await lockRoom(tx, first);
        meet();
        await both;
        await lockRoom(tx, second);
      });
    const results = await Promise.allSettled([lockBoth(one, two), lockBoth(two, one)]);
    const failed = results.filter((result) => result.status === "rejected");
    expect(failed).toHaveLength(1);
    expect(failed[0]?.reason).toMatchObject({ name: "StorageConflict", code: "deadlock" });
  });
});
