import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** A room that a user wants to see no more, with the position of the change of membership by which they left it. */
export interface ForgottenRoom {
  readonly userId: UserId;
  readonly roomId: RoomId;
  readonly streamId: bigint;
}

export async function insertForgottenRoom(c: Connection, { userId, roomId, streamId }: ForgottenRoom): Promise<void> {
  await execute(
    c,
    `INSERT INTO forgotten_rooms (user_id, room_id, stream_id) VALUES ($1, $2, $3)
     ON CONFLICT (user_id, room_id) DO UPDATE SET stream_id = EXCLUDED.stream_id`,
    [userId, roomId, streamId],
  );
}

/** Rooms that the user has forgotten, each with the position of the change of membership that was the last then. */
export async function forgottenRooms(c: Connection, userId: UserId): Promise<ReadonlyMap<RoomId, bigint>> {
  const rows = await queryRows<{ roomId: RoomId; streamId: bigint }>(
    c,
    `SELECT room_id AS "roomId", stream_id AS "streamId" FROM forgotten_rooms WHERE user_id = $1`,
    [userId],
  );
  return new Map(rows.map((row) => [row.roomId, row.streamId]));
}

/** Whether the user's membership has not changed since they forgot the room. */
export async function isRoomForgotten(c: Connection, roomId: RoomId, userId: UserId): Promise<boolean> {
  const row = await queryRow<{ forgotten: boolean }>(
    c,
    `SELECT EXISTS (
       SELECT 1 FROM forgotten_rooms forgotten WHERE user_id = $1 AND room_id = $2 AND NOT EXISTS (
         SELECT 1 FROM local_membership_stream newer WHERE newer.user_id = $1 AND newer.room_id = $2
           AND newer.stream_id > forgotten.stream_id)) AS forgotten`,
    [userId, roomId],
  );
  return row?.forgotten ?? false;
}

/** A room that the user has forgotten since they left it stays forgotten, though that leave is told once more. */
export async function keepRoomForgotten(
  c: Connection,
  { userId, roomId, streamId }: ForgottenRoom,
  leftAt: bigint,
): Promise<void> {
  await execute(
    c,
    `UPDATE forgotten_rooms SET stream_id = $3 WHERE user_id = $1 AND room_id = $2 AND stream_id >= $4`,
    [userId, roomId, streamId, leftAt],
  );
}
