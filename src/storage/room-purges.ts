import type { RoomId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** An operator's wish that nothing of a room be kept. Times are milliseconds since the epoch. */
export interface RoomPurge {
  readonly roomId: RoomId;
  readonly by: string;
  readonly at: number;
  readonly why: string;
  /** Since when only that is left of which others have still to be told; null: it is not done yet. */
  readonly purgedAt: number | null;
}

interface Row {
  readonly roomId: RoomId;
  readonly by: string;
  readonly at: Date;
  readonly why: string;
  readonly purgedAt: Date | null;
}

const COLUMNS = `room_id AS "roomId", by, at, why, purged_at AS "purgedAt"`;

function purgeOf({ roomId, by, at, why, purgedAt }: Row): RoomPurge {
  return { roomId, by, at: at.getTime(), why, purgedAt: purgedAt?.getTime() ?? null };
}

export async function loadRoomPurge(c: Connection, roomId: RoomId): Promise<RoomPurge | undefined> {
  const row = await queryRow<Row>(c, `SELECT ${COLUMNS} FROM room_purges WHERE room_id = $1`, [roomId]);
  return row && purgeOf(row);
}

/** In the order in which they were wished for. */
export async function listRoomPurges(c: Connection): Promise<readonly RoomPurge[]> {
  return (await queryRows<Row>(c, `SELECT ${COLUMNS} FROM room_purges ORDER BY at, room_id`)).map(purgeOf);
}

/** Notes the wish; a later one for the same room begins anew. */
export async function storeRoomPurge(c: Connection, purge: Omit<RoomPurge, "purgedAt">): Promise<void> {
  await execute(
    c,
    `INSERT INTO room_purges (room_id, by, at, why) VALUES ($1, $2, $3, $4)
     ON CONFLICT (room_id) DO UPDATE
       SET by = EXCLUDED.by, at = EXCLUDED.at, why = EXCLUDED.why, purged_at = NULL`,
    [purge.roomId, purge.by, new Date(purge.at), purge.why],
  );
}

/** `at`: milliseconds. */
export async function markRoomPurged(tx: Connection, roomId: RoomId, at: number): Promise<void> {
  await execute(tx, `UPDATE room_purges SET purged_at = $2 WHERE room_id = $1`, [roomId, new Date(at)]);
}

/** The room is ours to know again: it was joined, or one of our users was invited. True if there was a wish. */
export async function deleteRoomPurge(c: Connection, roomId: RoomId): Promise<boolean> {
  return (await execute(c, `DELETE FROM room_purges WHERE room_id = $1`, [roomId])) === 1;
}

/** How many entries of the outbox are events of the room. */
export async function countOwedOfRoom(c: Connection, roomId: RoomId): Promise<number> {
  const row = await queryRow<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM outbox JOIN events USING (event_id) WHERE events.room_id = $1`,
    [roomId],
  );
  return row?.count ?? 0;
}

/** Whether one of our users has a standing in the room other than having left it. */
export async function isRoomOpenToUs(c: Connection, roomId: RoomId): Promise<boolean> {
  const row = await queryRow<{ open: boolean }>(
    c,
    `SELECT EXISTS (
       SELECT 1 FROM (
         SELECT DISTINCT ON (user_id) membership FROM local_membership_stream
         WHERE room_id = $1 ORDER BY user_id, stream_id DESC) AS latest
       WHERE membership NOT IN ('leave', 'ban')) AS open`,
    [roomId],
  );
  return row?.open ?? false;
}
