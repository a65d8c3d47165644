import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { presenceOf, PRESENCE_COLUMNS, type Presence } from "./presence.ts";
import { queryRows, type Connection } from "./query.ts";
import type { Receipt } from "./receipts.ts";
import type { StreamRange } from "./streams.ts";

/** More is old news: the newest count. */
const MOST_OF_A_KIND = 1_000;

/** The rooms in which who types has changed within the range. */
export async function roomsWithTyping(c: Connection, range: StreamRange): Promise<readonly RoomId[]> {
  const rows = await queryRows<{ id: RoomId }>(
    c,
    `SELECT room_id AS id FROM typing_rooms WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id DESC LIMIT $3`,
    [range.from, range.to, MOST_OF_A_KIND],
  );
  return rows.map((row) => row.id);
}

/** The receipts of the range, oldest first. */
export async function receiptsWithin(c: Connection, range: StreamRange): Promise<readonly Receipt[]> {
  const rows = await queryRows<Omit<Receipt, "ts"> & { ts: bigint }>(
    c,
    `SELECT room_id AS "roomId", user_id AS "userId", receipt_type AS type, thread_id AS "threadId",
       event_id AS "eventId", ts FROM receipts
     WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id DESC, thread_id LIMIT $3`,
    [range.from, range.to, MOST_OF_A_KIND],
  );
  return rows.map((row) => ({ ...row, ts: Number(row.ts) })).toReversed();
}

interface PresenceWithRooms {
  readonly presence: Presence;
  /** In which the user is joined. */
  readonly roomIds: readonly RoomId[];
}

/** The presence that has changed within the range, oldest first. */
export async function presenceWithin(c: Connection, range: StreamRange): Promise<readonly PresenceWithRooms[]> {
  const rows = await queryRows<Parameters<typeof presenceOf>[0] & { readonly roomIds: RoomId[]; userId: UserId }>(
    c,
    `SELECT ${PRESENCE_COLUMNS}, ARRAY(SELECT room_id FROM current_memberships member
         WHERE member.user_id = presence.user_id AND membership = 'join') AS "roomIds"
     FROM presence WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id DESC LIMIT $3`,
    [range.from, range.to, MOST_OF_A_KIND],
  );
  return rows.map(({ roomIds, ...row }) => ({ presence: presenceOf(row), roomIds })).toReversed();
}
