import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import type { Database } from "./database.ts";
import { execute, type Connection } from "./query.ts";

/** An operator's wish for a room's resync; it is stored before the workflow is told. */
type ResyncWish = { readonly wish: "cancelled" } | { readonly wish: "prefer-server"; readonly serverName: ServerName };

export type ResyncControl = ResyncWish & {
  readonly roomId: RoomId;
  readonly by: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly why: string;
};

interface Row {
  readonly roomId: string;
  readonly wish: string;
  readonly serverName: string | null;
  readonly by: string;
  readonly at: Date;
  readonly why: string;
}

function controlOf({ roomId, wish, serverName, by, at, why }: Row): ResyncControl {
  const about = { roomId: roomId as RoomId, by, at: at.getTime(), why };
  return wish === "prefer-server" && serverName !== null
    ? { ...about, wish: "prefer-server", serverName }
    : { ...about, wish: "cancelled" };
}

export async function loadResyncControl(database: Database, roomId: RoomId): Promise<ResyncControl | undefined> {
  const row = await database.prisma.resyncControl.findUnique({ where: { roomId } });
  return row ? controlOf(row) : undefined;
}

export async function listResyncControls(database: Database): Promise<readonly ResyncControl[]> {
  const rows = await database.prisma.resyncControl.findMany({ orderBy: { roomId: "asc" } });
  return rows.map(controlOf);
}

/** The last wish for a room is the one that counts. */
export async function storeResyncControl(database: Database, control: ResyncControl): Promise<void> {
  const { roomId, wish, by, why } = control;
  const serverName = control.wish === "prefer-server" ? control.serverName : null;
  const data = { wish, serverName, by, why, at: new Date(control.at) };
  await database.prisma.resyncControl.upsert({ where: { roomId }, create: { roomId, ...data }, update: data });
}

/** Part of the transaction in which a room settles or is left; with the pool, what retry does. True if there was one. */
export async function deleteResyncControl(c: Connection, roomId: RoomId): Promise<boolean> {
  return (await execute(c, `DELETE FROM resync_control WHERE room_id = $1`, [roomId])) === 1;
}
