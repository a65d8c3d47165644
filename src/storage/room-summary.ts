import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { queryRow, queryRows } from "./query.ts";
import type { Connection } from "./query.ts";

interface MemberCounts {
  readonly joined: number;
  readonly invited: number;
}

/** Of the room's current state. */
export async function memberCounts(c: Connection, roomId: RoomId): Promise<MemberCounts> {
  const row = await queryRow<MemberCounts>(
    c,
    `SELECT count(*) FILTER (WHERE membership = 'join')::integer AS joined,
       count(*) FILTER (WHERE membership = 'invite')::integer AS invited
     FROM current_memberships WHERE room_id = $1`,
    [roomId],
  );
  return row ?? { joined: 0, invited: 0 };
}

export const MOST_HEROES = 5;

/** Up to five others after whom a room without a name can be called: members, or else those who have left. */
export async function heroesOf(c: Connection, roomId: RoomId, viewer: UserId): Promise<readonly UserId[]> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT user_id AS id FROM current_memberships WHERE room_id = $1 AND user_id <> $2
     ORDER BY CASE membership WHEN 'join' THEN 0 WHEN 'invite' THEN 0 ELSE 1 END, user_id COLLATE "C" LIMIT $3`,
    [roomId, viewer, MOST_HEROES],
  );
  return rows.map((row) => row.id);
}
