import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { RoomsSince } from "./room-ranges.ts";
import { takeStreamPositions } from "./streams.ts";
import { CLOCKS_DIFFER_MS } from "./time-left.ts";

/** More are not shown by any client: a server that invents users must not make the list grow. */
const MAX_TYPING_IN_ROOM = 100;

interface Typist {
  readonly roomId: RoomId;
  readonly userId: UserId;
}

/**
 * Takes the user up among those who type in the room, or keeps them there, until `expiresAt` (milliseconds).
 *
 * @returns whether the list has changed: then {@link noteTypingChanged} is to follow
 */
export async function startTyping(tx: Connection, typist: Typist & { readonly expiresAt: number }): Promise<boolean> {
  const { roomId, userId } = typist;
  const row = await queryRow<{ isNew: boolean }>(
    tx,
    `INSERT INTO typing_users (room_id, user_id, expires_at)
     SELECT $1, $2, $3
     WHERE (SELECT count(*) FROM typing_users WHERE room_id = $1 AND user_id <> $2) < $4
     ON CONFLICT (room_id, user_id) DO UPDATE SET expires_at = EXCLUDED.expires_at
     RETURNING xmax = 0 AS "isNew"`,
    [roomId, userId, new Date(typist.expiresAt), MAX_TYPING_IN_ROOM],
  );
  return row?.isNew === true;
}

/** @returns whether the list has changed, as of {@link startTyping} */
export async function stopTyping(tx: Connection, { roomId, userId }: Typist): Promise<boolean> {
  const stopped = await execute(tx, `DELETE FROM typing_users WHERE room_id = $1 AND user_id = $2`, [roomId, userId]);
  return stopped > 0;
}

/**
 * Takes off those whose time is over at `now`, or would last for more than `longestMs` by a clock that was ahead, once
 * among all processes.
 */
export async function expireTypists(
  tx: Connection,
  { now, longestMs }: { readonly now: number; readonly longestMs: number },
): Promise<readonly Typist[]> {
  return queryRows<{ roomId: RoomId; userId: UserId }>(
    tx,
    `DELETE FROM typing_users WHERE (room_id, user_id) IN (
       SELECT room_id, user_id FROM typing_users WHERE expires_at <= $1 OR expires_at > $2 ORDER BY room_id, user_id
       FOR UPDATE SKIP LOCKED)
     RETURNING room_id AS "roomId", user_id AS "userId"`,
    [new Date(now), new Date(now + longestMs + CLOCKS_DIFFER_MS)],
  );
}

/** Milliseconds since the epoch. */
export async function nextTypingExpiry(c: Connection): Promise<number | undefined> {
  const row = await queryRow<{ at: Date | null }>(c, `SELECT min(expires_at) AS at FROM typing_users`);
  return row?.at?.getTime();
}

/** Takes a stream position, so it comes last in the transaction. */
export async function noteTypingChanged(tx: Connection, rooms: readonly RoomId[]): Promise<void> {
  const streamId = await takeStreamPositions(tx, 1);
  await execute(
    tx,
    `INSERT INTO typing_rooms (room_id, stream_id) SELECT unnest($1::text[]), $2
     ON CONFLICT (room_id) DO UPDATE SET stream_id = EXCLUDED.stream_id`,
    [rooms, streamId],
  );
}

/** Of the rooms where the list has changed, who types there now, in the order of the user ids. */
export async function changedTyping(c: Connection, rooms: RoomsSince): Promise<ReadonlyMap<RoomId, readonly UserId[]>> {
  const rows = await queryRows<{ roomId: RoomId; userIds: UserId[] }>(
    c,
    `SELECT room_id AS "roomId", coalesce(array_agg(user_id ORDER BY user_id COLLATE "C")
         FILTER (WHERE user_id IS NOT NULL), '{}') AS "userIds"
     FROM unnest($1::text[], $2::bigint[]) AS asked (room_id, since)
     JOIN typing_rooms USING (room_id) LEFT JOIN typing_users USING (room_id)
     WHERE stream_id > since AND stream_id <= $3 GROUP BY room_id`,
    [rooms.roomIds, rooms.since, rooms.to],
  );
  return new Map(rows.map((row) => [row.roomId, row.userIds]));
}
