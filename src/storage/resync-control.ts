import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { transaction, type Database } from "./database.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import { holdRoom } from "./rooms.ts";

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

const CONTROLS = `SELECT room_id AS "roomId", wish, server_name AS "serverName", by, at, why FROM resync_control`;

function controlOf({ roomId, wish, serverName, by, at, why }: Row): ResyncControl {
  const about = { roomId: roomId as RoomId, by, at: at.getTime(), why };
  return wish === "prefer-server" && serverName !== null
    ? { ...about, wish: "prefer-server", serverName }
    : { ...about, wish: "cancelled" };
}

export async function loadResyncControl(database: Database, roomId: RoomId): Promise<ResyncControl | undefined> {
  const row = await queryRow<Row>(database.pool, `${CONTROLS} WHERE room_id = $1`, [roomId]);
  return row ? controlOf(row) : undefined;
}

export async function listResyncControls(database: Database): Promise<readonly ResyncControl[]> {
  const rows = await queryRows<Row>(database.pool, `${CONTROLS} ORDER BY room_id`);
  return rows.map(controlOf);
}

/**
 * Notes a wish for a room's resync; the last one is the one that counts. Whoever clears the room waits for it and takes
 * it away, or is waited for: no wish outlives the resync that it is about.
 *
 * @param joinEventId the join whose resync is meant, if not whichever there is
 * @returns false, with nothing noted, if the room is not partial any more, or for another join
 */
export async function storeResyncControl(
  database: Database,
  control: ResyncControl,
  joinEventId?: EventId,
): Promise<boolean> {
  const { roomId, wish, by, why } = control;
  const serverName = control.wish === "prefer-server" ? control.serverName : null;
  return await transaction(database, async (tx) => {
    // In the order in which a purge locks them; and shared, since an operator must not wait for a long repair.
    await holdRoom(tx, roomId);
    const partial = await queryRow<{ joinEventId: EventId | null }>(
      tx,
      `SELECT join_event_id AS "joinEventId" FROM partial_state_rooms WHERE room_id = $1 FOR KEY SHARE`,
      [roomId],
    );
    if (partial === undefined || (joinEventId !== undefined && partial.joinEventId !== joinEventId)) return false;
    await execute(
      tx,
      `INSERT INTO resync_control (room_id, wish, server_name, by, at, why) VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT (room_id) DO UPDATE SET wish = EXCLUDED.wish, server_name = EXCLUDED.server_name,
         by = EXCLUDED.by, at = EXCLUDED.at, why = EXCLUDED.why`,
      [roomId, wish, serverName, by, new Date(control.at), why],
    );
    return true;
  });
}

/** Part of the transaction in which a room settles or is left; with the pool, what retry does. True if there was one. */
export async function deleteResyncControl(c: Connection, roomId: RoomId): Promise<boolean> {
  return (await execute(c, `DELETE FROM resync_control WHERE room_id = $1`, [roomId])) === 1;
}
