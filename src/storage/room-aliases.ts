import type { RoomAlias, RoomId, UserId } from "../matrix/identifiers.ts";
import type { Database } from "./database.ts";
import { execute, queryRows, type Connection } from "./query.ts";

interface RoomAliasRow {
  readonly roomAlias: RoomAlias;
  readonly roomId: RoomId;
  readonly creator: UserId;
}

/** Part of the transaction that makes the room. False if the alias is taken. */
export async function insertAlias(
  tx: Connection,
  { alias, roomId, creator }: { readonly alias: RoomAlias; readonly roomId: RoomId; readonly creator: UserId },
): Promise<boolean> {
  const written = await execute(
    tx,
    `INSERT INTO room_aliases (room_alias, room_id, creator) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
    [alias, roomId, creator],
  );
  return written === 1;
}

export async function resolveRoomAlias(database: Database, roomAlias: RoomAlias): Promise<RoomAliasRow | undefined> {
  const prisma = await database.prisma();
  const row = await prisma.roomAlias.findUnique({ where: { roomAlias } });
  return (row as RoomAliasRow | null) ?? undefined;
}

/** True if there was one. */
export async function deleteRoomAlias(database: Database, roomAlias: RoomAlias): Promise<boolean> {
  const prisma = await database.prisma();
  const { count } = await prisma.roomAlias.deleteMany({ where: { roomAlias } });
  return count === 1;
}

/** In the order of their names. */
export async function aliasesOfRoom(c: Connection, roomId: RoomId): Promise<readonly RoomAlias[]> {
  const rows = await queryRows<{ alias: RoomAlias }>(
    c,
    `SELECT room_alias AS alias FROM room_aliases WHERE room_id = $1 ORDER BY room_alias COLLATE "C"`,
    [roomId],
  );
  return rows.map((row) => row.alias);
}

/** Lets all aliases of one room name another. */
export async function moveAliases(tx: Connection, from: RoomId, to: RoomId): Promise<void> {
  await execute(tx, `UPDATE room_aliases SET room_id = $2 WHERE room_id = $1`, [from, to]);
}
