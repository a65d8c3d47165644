import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { transaction } from "../../../src/storage/database.ts";
import {
  appendCurrentStateDeltas,
  appendLocalMembership,
  appendUnPartialStatedEvents,
  appendUnPartialStatedRoom,
  currentStateDelta,
  currentStreamPosition,
  goneFromCurrentState,
  listenForStream,
  localMembershipChanges,
  localMembershipsAt,
  takeStreamPositions,
  unPartialStatedEvents,
  unPartialStatedRooms,
} from "../../../src/storage/streams.ts";
import { openTestDatabase } from "../../support/database.ts";

const database = await openTestDatabase();

describe("takeStreamPositions", () => {
  it("gives blocks that follow each other", async () => {
    const first = await transaction(database, (tx) => takeStreamPositions(tx, 3));
    expect(await currentStreamPosition(database.pool)).toBe(first + 2n);
    expect(await transaction(database, (tx) => takeStreamPositions(tx, 1))).toBe(first + 3n);
  });

  it("lets nobody see a later position before an earlier one", async () => {
    const before = await currentStreamPosition(database.pool);
    let second: Promise<bigint> | undefined;
    const first = await transaction(database, async (tx) => {
      const position = await takeStreamPositions(tx, 1);
      second = transaction(database, (other) => takeStreamPositions(other, 1));
      expect(await Promise.race([second, sleep(200, "waits")])).toBe("waits");
      expect(await currentStreamPosition(database.pool)).toBe(before);
      return position;
    });
    expect(first).toBe(before + 1n);
    expect(await second).toBe(before + 2n);
  });

  it("shows, under many writers, only rows below a position that was seen before", async () => {
    const stopped = new AbortController();
    const write = async (writer: number) => {
      for (let step = 0; step < 25; step += 1) {
        await transaction(database, async (tx) => {
          const position = await takeStreamPositions(tx, 2);
          await appendUnPartialStatedRoom(tx, position, `!w${writer}:example.org`);
          await appendUnPartialStatedRoom(tx, position + 1n, `!w${writer}:example.org`);
        });
      }
    };
    const read = async () => {
      let seen = await currentStreamPosition(database.pool);
      while (!stopped.signal.aborted) {
        const to = await currentStreamPosition(database.pool);
        const rows = await unPartialStatedRooms(database.pool, { from: seen, to });
        // Every position of the range is there at once: none turns up later behind our back.
        expect(rows.map((row) => row.streamId)).toEqual(
          Array.from({ length: Number(to - seen) }, (_, index) => seen + BigInt(index) + 1n),
        );
        seen = to;
      }
    };
    const reading = read();
    await Promise.all([1, 2, 3, 4].map(write));
    stopped.abort();
    await reading;
  });

  it("takes nothing if the transaction is rolled back", async () => {
    const before = await currentStreamPosition(database.pool);
    const failing = transaction(database, async (tx) => {
      await takeStreamPositions(tx, 5);
      throw new Error("changed our mind");
    });
    await expect(failing).rejects.toThrow("changed our mind");
    expect(await currentStreamPosition(database.pool)).toBe(before);
  });
});

describe("listenForStream", () => {
  async function positionsUntil(told: readonly bigint[], wanted: bigint): Promise<void> {
    await expect.poll(() => told).toContain(wanted);
  }

  it("tells the last position of each commit, and none before the commit", async () => {
    const told: bigint[] = [];
    const stop = await listenForStream(database, (position) => told.push(position));
    const last = await transaction(database, async (tx) => {
      const position = (await takeStreamPositions(tx, 2)) + 1n;
      await sleep(100);
      expect(told).not.toContain(position);
      return position;
    });
    await positionsUntil(told, last);
    await stop();
  });

  it("comes back after its connection is ended, and tells what it missed", async () => {
    const told: bigint[] = [];
    const lost: unknown[] = [];
    const stop = await listenForStream(database, (position) => told.push(position), {
      reconnectDelayMs: 300,
      onError: (error) => lost.push(error),
    });
    const ended = await database.pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND application_name = 'fastjoin listen'`,
    );
    expect(ended.rowCount).toBe(1);
    while (lost.length === 0) await sleep(5);
    const missed = await transaction(database, (tx) => takeStreamPositions(tx, 1));
    await positionsUntil(told, missed);
    const after = await transaction(database, (tx) => takeStreamPositions(tx, 1));
    await positionsUntil(told, after);
    await stop();
  });

  it("ends at once when it is stopped", async () => {
    const told: bigint[] = [];
    const stop = await listenForStream(database, (position) => told.push(position));
    await stop();
    const listening = await database.pool.query(
      `SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'fastjoin listen'`,
    );
    expect(listening.rowCount).toBe(0);
    const count = told.length;
    await transaction(database, (tx) => takeStreamPositions(tx, 1));
    await sleep(100);
    expect(told).toHaveLength(count);
  });
});

describe("the stream tables", () => {
  it("give what stands above one position and up to another", async () => {
    const first = await transaction(database, async (tx) => {
      const position = await takeStreamPositions(tx, 4);
      await appendUnPartialStatedRoom(tx, position, "!done:example.org");
      const entry = { streamId: position + 1n, eventId: "$turned", rejectionStatusChanged: true } as const;
      await appendUnPartialStatedEvents(tx, [entry]);
      const [topic, name] = [stateKeyOf("m.room.topic", ""), stateKeyOf("m.room.name", "")];
      const roomId = "!done:example.org";
      await appendCurrentStateDeltas(tx, { streamId: position + 2n, roomId }, [
        { key: topic, eventId: "$topic", previousEventId: null },
        { key: name, eventId: "$name", previousEventId: null },
      ]);
      await appendCurrentStateDeltas(tx, { streamId: position + 3n, roomId }, [
        { key: topic, eventId: null, previousEventId: "$topic" },
      ]);
      return position;
    });
    const { pool } = database;
    const range = { from: first - 1n, to: first + 3n };
    expect(await unPartialStatedRooms(pool, range)).toEqual([{ streamId: first, roomId: "!done:example.org" }]);
    expect(await unPartialStatedRooms(pool, { ...range, from: first })).toEqual([]);
    expect(await unPartialStatedEvents(pool, range)).toEqual([
      { streamId: first + 1n, eventId: "$turned", rejectionStatusChanged: true },
    ]);
    expect(await currentStateDelta(pool, "!done:example.org", { from: first, to: first + 2n })).toEqual(
      new Map([
        [stateKeyOf("m.room.topic", ""), "$topic"],
        [stateKeyOf("m.room.name", ""), "$name"],
      ]),
    );
    expect(await currentStateDelta(pool, "!done:example.org", range)).toEqual(
      new Map([
        [stateKeyOf("m.room.name", ""), "$name"],
        [stateKeyOf("m.room.topic", ""), null],
      ]),
    );
    expect(await goneFromCurrentState(pool, "!done:example.org", range)).toEqual(["$topic"]);
    expect(await goneFromCurrentState(pool, "!done:example.org", { from: first, to: first + 2n })).toEqual([]);
  });

  it("tell a user's standing in each room at a position", async () => {
    const change = (roomId: "!a:b" | "!c:d", membership: "join" | "leave", eventId: `$${string}`) =>
      transaction(database, async (tx) => {
        const streamId = await takeStreamPositions(tx, 1);
        const row = { streamId, userId: "@u:example.org", roomId, membership, eventId } as const;
        await appendLocalMembership(tx, row);
        return row;
      });
    const joined = await change("!a:b", "join", "$1");
    const other = await change("!c:d", "join", "$2");
    const left = await change("!a:b", "leave", "$3");
    const { pool } = database;
    expect(await localMembershipsAt(pool, "@u:example.org", other.streamId)).toEqual([joined, other]);
    expect(await localMembershipsAt(pool, "@u:example.org", left.streamId)).toEqual([left, other]);
    const range = { from: joined.streamId, to: left.streamId };
    expect(await localMembershipChanges(pool, "@u:example.org", range)).toEqual([other, left]);
  });
});
