import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { untilNoEarlyOutlierIsDeleted } from "./early-outliers.ts";
import { execute, queryRow, type Connection } from "./query.ts";

/** One join of a user: two of them may be under way at once, by two clients or two processes. */
export interface JoinUnderWay {
  readonly roomId: RoomId;
  readonly userId: UserId;
  /** Unique. */
  readonly attempt: string;
}

/**
 * Notes that a join has begun, so that PDUs for the room are kept until it ends, and what earlier ones have left is not
 * deleted any more. `since`: milliseconds.
 */
export async function beginJoin(c: Connection, join: JoinUnderWay & { readonly since: number }): Promise<void> {
  await execute(
    c,
    `INSERT INTO joins_under_way (room_id, user_id, attempt, since) VALUES ($1, $2, $3, $4)
     ON CONFLICT (room_id, user_id, attempt) DO UPDATE SET since = EXCLUDED.since`,
    [join.roomId, join.userId, join.attempt, new Date(join.since)],
  );
  await untilNoEarlyOutlierIsDeleted(c, join.roomId);
}

export async function endJoin(c: Connection, { roomId, userId, attempt }: JoinUnderWay): Promise<void> {
  await execute(c, `DELETE FROM joins_under_way WHERE room_id = $1 AND user_id = $2 AND attempt = $3`, [
    roomId,
    userId,
    attempt,
  ]);
}

/** Whether a join of this user is under way. */
export async function isUserJoining(c: Connection, roomId: RoomId, userId: UserId): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `SELECT EXISTS (SELECT 1 FROM joins_under_way WHERE room_id = $1 AND user_id = $2) AS found`,
    [roomId, userId],
  );
  return row?.found ?? false;
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
export async function forgetStaleJoins(c: Connection, before: number): Promise<void> {
  await execute(c, `DELETE FROM joins_under_way WHERE since < $1`, [new Date(before)]);
}
