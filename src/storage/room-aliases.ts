import type { RoomAlias, RoomId, UserId } from "../matrix/identifiers.ts";
import type { Database } from "./database.ts";

export interface RoomAliasRow {
  readonly roomAlias: RoomAlias;
  readonly roomId: RoomId;
  readonly creator: UserId;
}

/** False if the alias is taken. */
export async function createRoomAlias(database: Database, alias: RoomAliasRow): Promise<boolean> {
  const { count } = await database.prisma.roomAlias.createMany({ data: [{ ...alias }], skipDuplicates: true });
  return count === 1;
}

export async function resolveRoomAlias(database: Database, roomAlias: RoomAlias): Promise<RoomAliasRow | undefined> {
  const row = await database.prisma.roomAlias.findUnique({ where: { roomAlias } });
  return (row as RoomAliasRow | null) ?? undefined;
}

/** In the order of the aliases. */
export async function aliasesOf(database: Database, roomId: RoomId): Promise<readonly RoomAlias[]> {
  const rows = await database.prisma.roomAlias.findMany({ where: { roomId }, orderBy: { roomAlias: "asc" } });
  return rows.map((row) => row.roomAlias as RoomAlias);
}

/** True if there was one. */
export async function deleteRoomAlias(database: Database, roomAlias: RoomAlias): Promise<boolean> {
  const { count } = await database.prisma.roomAlias.deleteMany({ where: { roomAlias } });
  return count === 1;
}
