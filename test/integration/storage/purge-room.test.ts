import { describe, expect, it } from "vitest";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import { transaction } from "../../../src/storage/database.ts";
import { addToOutbox } from "../../../src/storage/outbox.ts";
import { purgeRoom, purgeRoomDetails } from "../../../src/storage/purge-room.ts";
import type { Connection } from "../../../src/storage/query.ts";
import { openTestDatabase } from "../../support/database.ts";
import { rowsNaming, tablesNamingRooms } from "../../support/rows-naming.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();

/** Goes with the row that it refers to. */
const BY_CASCADE = ["redactions", "room_purges"];

/** Tables that refer to events or rooms by a foreign key, or name rooms without one. */
async function tablesOfRooms(): Promise<ReadonlySet<string>> {
  const { rows } = await database.pool.query<{ name: string }>(
    `SELECT DISTINCT conrelid::regclass::text AS name FROM pg_constraint
     WHERE contype = 'f' AND confrelid IN ('rooms'::regclass, 'events'::regclass)`,
  );
  return new Set([...rows.map((row) => row.name), ...(await tablesNamingRooms(database))]);
}

async function statementsOf(purge: (tx: Connection, roomId: RoomId) => Promise<unknown>): Promise<readonly string[]> {
  const statements: string[] = [];
  const roomId = await aStoredRoom(database);
  await transaction(database, async (tx) => {
    const noting = {
      query: async (config: { readonly text: string }) => {
        statements.push(config.text);
        return await tx.query(config);
      },
    };
    await purge(noting as unknown as Connection, roomId);
  });
  return statements;
}

describe("purgeRoom", () => {
  it("deletes from every table of the catalog that names rooms or their events", async () => {
    const statements = await statementsOf(purgeRoom);
    const emptied = new Set(statements.flatMap((text) => /^DELETE FROM (\w+)/.exec(text)?.[1] ?? []));
    const forgotten = [...(await tablesOfRooms())].filter((table) => !emptied.has(table));
    expect(forgotten.filter((table) => !BY_CASCADE.includes(table))).toEqual([]);
  });
});

describe("purgeRoomDetails", () => {
  it("keeps the events that stand in the outbox with the room's row, without their states", async () => {
    const roomId = await aStoredRoom(database);
    const [gone, owed] = [anEvent(roomId, "$gone"), anEvent(roomId, "$owed")];
    await storeInTimeline(database, gone);
    const streamId = await storeInTimeline(database, owed);
    await addToOutbox(database.pool, { eventId: owed.eventId, streamId, destinations: ["down.example"] });

    await transaction(database, (tx) => purgeRoomDetails(tx, roomId));

    expect(await rowsNaming(database, roomId)).toEqual({ rooms: 1, events: 1 });
    const { rows } = await database.pool.query(
      "SELECT event_id, state_before, state_after FROM events WHERE room_id = $1",
      [roomId],
    );
    expect(rows).toEqual([{ event_id: "$owed", state_before: null, state_after: null }]);
    expect(await transaction(database, (tx) => purgeRoom(tx, roomId))).toBe(true);
    expect(await rowsNaming(database, roomId)).toEqual({});
  });
});
