import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { insertOutliers } from "../../../src/storage/events.ts";
import { insertResyncDrop } from "../../../src/storage/resync-drops.ts";
import { storeSnapshot } from "../../../src/storage/state-snapshots.ts";
import { transaction } from "../../../src/storage/database.ts";
import { PartialRoomGone, StorageConflict } from "../../../src/storage/errors.ts";
import {
  addPartialRoomServers,
  countPartialEvents,
  deletePartialRoom,
  insertPartialRoom,
  listPartialRooms,
  lockPartialRoom,
  markPartial,
  nextRepairableEvents,
  partialEventIds,
  partialRoom,
  partialRoomServers,
} from "../../../src/storage/partial-state.ts";
import {
  areStateIdsStored,
  clearResyncStateIds,
  deleteResyncStateIds,
  loadResyncStateIds,
  loadStoredStateIds,
  loadToldState,
  noteSnapshotOfStateIds,
  saveResyncStateIds,
  unstoredStateIds,
} from "../../../src/storage/resync-state-ids.ts";
import { openTestDatabase } from "../../support/database.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();
const { pool } = database;

async function aPartialRoom(): Promise<RoomId> {
  const roomId = await aStoredRoom(database);
  await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: "via.example.org", deviceListsStreamId: 7n });
  return roomId;
}

async function aPartialEvent(roomId: RoomId, eventId: EventId, prev: readonly EventId[] = []): Promise<void> {
  await storeInTimeline(database, anEvent(roomId, eventId, { prev_events: prev }));
  await markPartial(pool, roomId, eventId);
}

async function unmarkPartial(eventId: EventId): Promise<void> {
  await pool.query("DELETE FROM partial_state_events WHERE event_id = $1", [eventId]);
}

describe("insertPartialRoom", () => {
  it("keeps what is known of the join", async () => {
    const roomId = await aStoredRoom(database);
    await storeInTimeline(database, anEvent(roomId, "$join"));
    const room = {
      roomId,
      joinEventId: "$join",
      joinedVia: "via.example.org",
      deviceListsStreamId: 2n ** 60n,
    } as const;
    await insertPartialRoom(pool, room);
    expect(await partialRoom(pool, roomId)).toEqual(room);
    expect(await listPartialRooms(pool)).toContainEqual(room);
    await expect(insertPartialRoom(pool, room)).rejects.toMatchObject({ name: "StorageConflict", code: "unique" });
    expect(await transaction(database, (tx) => lockPartialRoom(tx, roomId))).toEqual(room);
  });

  it("refuses a room that we don't know", async () => {
    const room = {
      roomId: "!unknown:example.org",
      joinEventId: null,
      joinedVia: null,
      deviceListsStreamId: 0n,
    } as const;
    await expect(insertPartialRoom(pool, room)).rejects.toMatchObject({ code: "foreign-key" });
  });
});

describe("addPartialRoomServers", () => {
  it("keeps each server once", async () => {
    const roomId = await aPartialRoom();
    await addPartialRoomServers(pool, roomId, ["b.org", "a.org"]);
    await addPartialRoomServers(pool, roomId, ["c.org", "a.org"]);
    expect(await partialRoomServers(pool, roomId)).toEqual(["a.org", "b.org", "c.org"]);
  });

  it("tells when the room is no longer partial", async () => {
    const roomId = await aStoredRoom(database);
    await expect(addPartialRoomServers(pool, roomId, ["a.org"])).rejects.toBeInstanceOf(PartialRoomGone);
  });
});

describe("markPartial", () => {
  it("refuses another room's event", async () => {
    const [roomId, other] = [await aPartialRoom(), await aPartialRoom()];
    await storeInTimeline(database, anEvent(other, "$others"));
    await expect(markPartial(pool, roomId, "$others")).rejects.toMatchObject({
      name: "StorageConflict",
      code: "check",
    });
    expect(await countPartialEvents(pool, roomId)).toBe(0);
  });

  it("marks an event once", async () => {
    const roomId = await aPartialRoom();
    await aPartialEvent(roomId, "$twice");
    await markPartial(pool, roomId, "$twice");
    expect(await countPartialEvents(pool, roomId)).toBe(1);
    const insert = pool.query("INSERT INTO partial_state_events (room_id, event_id) VALUES ($1, '$twice')", [roomId]);
    await expect(insert).rejects.toMatchObject({ code: "23505" });
  });

  it("tells when the room was cleared meanwhile, even in the middle of clearing it", async () => {
    const roomId = await aPartialRoom();
    await storeInTimeline(database, anEvent(roomId, "$late"));
    let marking: Promise<unknown> | undefined;
    await transaction(database, async (tx) => {
      await deletePartialRoom(tx, roomId);
      marking = markPartial(pool, roomId, "$late").catch((error: unknown) => error);
      // It waits for us: whether the room is gone is not settled before we commit.
      expect(await Promise.race([marking, new Promise((resolve) => setTimeout(resolve, 200, "waits"))])).toBe("waits");
    });
    expect(await marking).toBeInstanceOf(PartialRoomGone);
  });

  it("does not wait for a repair that holds the room's row", async () => {
    const roomId = await aPartialRoom();
    await storeInTimeline(database, anEvent(roomId, "$meanwhile"));
    await transaction(database, async (tx) => {
      await lockPartialRoom(tx, roomId);
      await markPartial(pool, roomId, "$meanwhile");
    });
    expect(await partialEventIds(pool, ["$meanwhile", "$other"])).toEqual(new Set(["$meanwhile"]));
  });
});

describe("deletePartialRoom", () => {
  it("refuses while an event of the room is partial, and keeps everything", async () => {
    const roomId = await aPartialRoom();
    await addPartialRoomServers(pool, roomId, ["a.org"]);
    await aPartialEvent(roomId, "$holds");
    const clearing = transaction(database, (tx) => deletePartialRoom(tx, roomId));
    await expect(clearing).rejects.toSatisfy(
      (error) => error instanceof StorageConflict && error.code === "foreign-key",
    );
    expect(await partialRoomServers(pool, roomId)).toEqual(["a.org"]);
    await unmarkPartial("$holds");
    expect(await transaction(database, (tx) => deletePartialRoom(tx, roomId))).toBe(true);
    expect(await partialRoom(pool, roomId)).toBeUndefined();
  });
});

describe("nextRepairableEvents", () => {
  const next = async (roomId: RoomId, limit: number): Promise<readonly EventId[]> =>
    (await nextRepairableEvents(pool, roomId, limit)).map(({ eventId }) => eventId);

  it("gives the partial events by arrival, each behind its partial prev_events", async () => {
    const roomId = await aPartialRoom();
    await aPartialEvent(roomId, "$z", ["$unknown"]);
    await aPartialEvent(roomId, "$y", ["$z"]);
    await aPartialEvent(roomId, "$x", ["$y", "$z"]);
    await aPartialEvent(roomId, "$a");
    expect(await next(roomId, 10)).toEqual(["$z", "$y", "$x", "$a"]);
    expect(await next(roomId, 3)).toEqual(["$z", "$y", "$x", "$a"]);
    await unmarkPartial("$z");
    // The second has no past that it could lack.
    expect(await next(roomId, 1)).toEqual(["$y", "$a"]);
  });

  it("keeps none that may stand first from its turn, however many stand before it that wait for another", async () => {
    const roomId = await aPartialRoom();
    await aPartialEvent(roomId, "$lacking", ["$lost"]);
    await aPartialEvent(roomId, "$behind", ["$lacking"]);
    await aPartialEvent(roomId, "$behind it", ["$behind"]);
    await aPartialEvent(roomId, "$beside");
    expect(await next(roomId, 2)).toEqual(["$lacking", "$behind", "$beside"]);
  });

  it("keeps none that lacks no state from its turn, however many stand before it that each lack one", async () => {
    const roomId = await aPartialRoom();
    for (const number of [1, 2, 3, 4]) await aPartialEvent(roomId, `$lacking${number}`, [`$lost${number}`]);
    await insertOutliers(pool, [{ event: anEvent(roomId, "$fetched"), rejection: null }]);
    await aPartialEvent(roomId, "$behind fetched", ["$fetched"]);
    const [, , whole, ...more] = await next(roomId, 2);
    expect([whole, more]).toEqual([undefined, []]);
    const answer = { roomId, eventId: "$fetched", serverName: "a.org", stateEventIds: [], authEventIds: [] } as const;
    await saveResyncStateIds(pool, answer);
    await noteSnapshotOfStateIds(
      pool,
      answer,
      await storeSnapshot(pool, roomId, { parentId: null, changes: new Map() }),
    );
    expect(await next(roomId, 2)).toEqual(["$lacking1", "$lacking2", "$behind fetched"]);
    await insertResyncDrop(pool, { roomId, eventId: "$lacking4", by: "operator", at: 0, why: "" });
    expect(await next(roomId, 2)).toEqual(["$lacking1", "$lacking2", "$lacking4", "$behind fetched"]);
  });

  it("puts an event behind the partial events that authorize it", async () => {
    const roomId = await aPartialRoom();
    await storeInTimeline(database, anEvent(roomId, "$judged", { prev_events: [], auth_events: ["$authorizing"] }));
    await markPartial(pool, roomId, "$judged");
    await aPartialEvent(roomId, "$authorizing");
    expect(await next(roomId, 10)).toEqual(["$authorizing", "$judged"]);
  });

  it("puts an event that has arrived before its prev_events behind them", async () => {
    const roomId = await aPartialRoom();
    await aPartialEvent(roomId, "$last", ["$middle"]);
    await aPartialEvent(roomId, "$middle", ["$first"]);
    await aPartialEvent(roomId, "$first");
    expect(await next(roomId, 10)).toEqual(["$first", "$middle", "$last"]);
    // However late it has arrived, and however many stand before it.
    expect(await next(roomId, 1)).toEqual(["$first"]);
  });
});

describe("areStateIdsStored", () => {
  it("asks for every event that the answer names, of the state and of its auth chain", async () => {
    const roomId = await aPartialRoom();
    const answer = { roomId, eventId: "$told", serverName: "a.org" } as const;
    const isStored = async (): Promise<boolean> => await areStateIdsStored(pool, roomId, "$told");
    expect(await isStored()).toBe(false);
    await saveResyncStateIds(pool, { ...answer, stateEventIds: ["$of state"], authEventIds: ["$of chain"] });
    expect(await isStored()).toBe(false);
    await insertOutliers(pool, [{ event: anEvent(roomId, "$of state"), rejection: null }]);
    expect(await isStored()).toBe(false);
    await insertOutliers(pool, [{ event: anEvent(roomId, "$of chain"), rejection: null }]);
    expect(await isStored()).toBe(true);
  });
});

describe("unstoredStateIds", () => {
  it("names each event of the answer that is not stored once, as long as it is this server's answer", async () => {
    const roomId = await aPartialRoom();
    const answer = { roomId, eventId: "$partly", serverName: "a.org" } as const;
    const stateEventIds = Array.from({ length: 20_001 }, (_none, index): EventId => `$${index} of state`);
    await saveResyncStateIds(pool, { ...answer, stateEventIds, authEventIds: ["$0 of state", "$of the chain"] });
    const stored = ["$1 of state", "$20000 of state"] as const;
    await insertOutliers(
      pool,
      stored.map((id) => ({ event: anEvent(roomId, id), rejection: null })),
    );
    const told = await loadToldState(pool, roomId, "$partly");
    expect(told).toEqual({ ...answer, count: 20_003 });
    if (told === undefined) return;
    const unstored = await unstoredStateIds(pool, told);
    expect(unstored.size).toBe(20_000);
    expect((["$0 of state", "$of the chain", ...stored] as const).map((id) => unstored.has(id))).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(await unstoredStateIds(pool, { ...told, serverName: "b.org" })).toEqual(new Set());
  });
});

describe("loadStoredStateIds", () => {
  it("gives an answer once all of it is stored, and no other server's", async () => {
    const roomId = await aPartialRoom();
    const answer = { roomId, eventId: "$wholly", serverName: "a.org" } as const;
    const ids = { stateEventIds: ["$whole state"], authEventIds: ["$whole chain"] } as const;
    await saveResyncStateIds(pool, { ...answer, ...ids });
    await insertOutliers(pool, [{ event: anEvent(roomId, "$whole state"), rejection: null }]);
    expect(await loadStoredStateIds(pool, { ...answer, count: 2 })).toBeUndefined();
    await insertOutliers(pool, [{ event: anEvent(roomId, "$whole chain"), rejection: null }]);
    expect(await loadStoredStateIds(pool, { ...answer, count: 2 })).toEqual({ ...answer, ...ids });
    expect(await loadStoredStateIds(pool, { ...answer, serverName: "b.org", count: 2 })).toBeUndefined();
  });
});

describe("saveResyncStateIds", () => {
  it("stores an answer of any length, in its order", async () => {
    const roomId = await aPartialRoom();
    const some = (count: number, of: string): readonly EventId[] =>
      Array.from({ length: count }, (_none, index): EventId => `$${of}${index}`);
    const ids = { stateEventIds: some(200_001, "s"), authEventIds: some(100_001, "a") };
    const answer = { roomId, eventId: "$long", serverName: "a.org", ...ids } as const;
    await transaction(database, async (tx) => saveResyncStateIds(tx, answer));
    expect(await loadResyncStateIds(pool, roomId, "$long")).toEqual(answer);
  });

  it("keeps the newest answer at an event", async () => {
    const roomId = await aPartialRoom();
    const answer = { roomId, eventId: "$asked", serverName: "a.org" } as const;
    await saveResyncStateIds(pool, { ...answer, stateEventIds: ["$old"], authEventIds: [] });
    const newest = { ...answer, stateEventIds: ["$known", "$s"], authEventIds: ["$s", "$t"] } as const;
    await saveResyncStateIds(pool, newest);
    expect(await loadResyncStateIds(pool, roomId, "$asked")).toEqual(newest);
    await saveResyncStateIds(pool, { ...answer, eventId: "$done", stateEventIds: ["$d"], authEventIds: [] });
    await deleteResyncStateIds(pool, roomId, "$done");
    expect(await loadResyncStateIds(pool, roomId, "$done")).toBeUndefined();
    expect(await loadResyncStateIds(pool, roomId, "$asked")).toEqual(newest);
    await clearResyncStateIds(pool, roomId);
    expect(await loadResyncStateIds(pool, roomId, "$asked")).toBeUndefined();
  });
});
