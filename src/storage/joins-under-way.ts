import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, type Connection } from "./query.ts";

/** Notes that a join has begun, so that PDUs for the room are kept until it ends. `since`: milliseconds. */
export async function beginJoin(
  c: Connection,
  join: { readonly roomId: RoomId; readonly userId: UserId; readonly since: number },
): Promise<void> {
  await execute(
    c,
    `INSERT INTO joins_under_way (room_id, user_id, since) VALUES ($1, $2, $3)
     ON CONFLICT (room_id, user_id) DO UPDATE SET since = EXCLUDED.since`,
    [join.roomId, join.userId, new Date(join.since)],
  );
}

export async function endJoin(c: Connection, roomId: RoomId, userId: UserId): Promise<void> {
  await execute(c, `DELETE FROM joins_under_way WHERE room_id = $1 AND user_id = $2`, [roomId, userId]);
}

export async function isJoinUnderWay(c: Connection, roomId: RoomId): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `SELECT EXISTS (SELECT 1 FROM joins_under_way WHERE room_id = $1) AS found`,
    [roomId],
  );
  return row?.found ?? false;
}

/** Forgets joins that a crash has left behind: those begun before `before` (milliseconds). */
export async function forgetStaleJoins(c: Connection, before: number): Promise<number> {
  return execute(c, `DELETE FROM joins_under_way WHERE since < $1`, [new Date(before)]);
}
