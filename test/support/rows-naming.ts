import type { RoomId } from "../../src/matrix/identifiers.ts";
import type { Database } from "../../src/storage/database.ts";

/** The tables of the database that name rooms, as its catalog has them. */
export async function tablesNamingRooms(database: Database): Promise<readonly string[]> {
  const { rows } = await database.pool.query<{ name: string }>(
    `SELECT table_name AS name FROM information_schema.columns
     WHERE table_schema = 'public' AND column_name = 'room_id' ORDER BY 1`,
  );
  return rows.map((row) => row.name);
}

/** How many rows name the room, by table; tables that have none are left out. */
export async function rowsNaming(database: Database, roomId: RoomId): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {};
  for (const table of await tablesNamingRooms(database)) {
    const { rowCount } = await database.pool.query(`SELECT FROM ${table} WHERE room_id = $1`, [roomId]);
    if (rowCount !== null && rowCount > 0) counts[table] = rowCount;
  }
  return counts;
}
