import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { RoomsSince } from "./room-ranges.ts";

export type ReceiptType = "m.read" | "m.read.private";

export interface Receipt {
  readonly roomId: RoomId;
  readonly userId: UserId;
  readonly type: ReceiptType;
  /** A thread's root or "main"; empty for a receipt of no thread. */
  readonly threadId: string;
  readonly eventId: EventId;
  /** Milliseconds since the epoch. */
  readonly ts: number;
}

/** A user's receipts in a room, one a thread: the oldest go. */
const MAX_THREADS = 100;
/** Of a server's users in a partial room, how many we believe to be members whose membership we lack. */
const MAX_UNKNOWN_READERS = 1_000;

const KEY = `room_id = $1 AND user_id = $2 AND receipt_type = $3 AND thread_id = $4`;

function keyOf({ roomId, userId, type, threadId }: Receipt): readonly unknown[] {
  return [roomId, userId, type, threadId];
}

/** Whether the receipt says more than the one we have: one for an event that we know to be older does not. */
export async function isNewsReceipt(c: Connection, receipt: Receipt): Promise<boolean> {
  const row = await queryRow<{ isOld: boolean }>(
    c,
    `SELECT receipts.event_id = $5 OR coalesce(
       (SELECT stream_id FROM events WHERE event_id = receipts.event_id AND room_id = $1) >
       (SELECT stream_id FROM events WHERE event_id = $5 AND room_id = $1), false) AS "isOld"
     FROM receipts WHERE ${KEY}`,
    [...keyOf(receipt), receipt.eventId],
  );
  return row?.isOld !== true;
}

/** Puts the receipt in the place of the one of its user, type and thread. */
export async function storeReceipt(tx: Connection, receipt: Receipt, streamId: bigint): Promise<void> {
  await execute(
    tx,
    `INSERT INTO receipts (room_id, user_id, receipt_type, thread_id, server_name, event_id, ts, stream_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (room_id, user_id, receipt_type, thread_id)
       DO UPDATE SET event_id = EXCLUDED.event_id, ts = EXCLUDED.ts, stream_id = EXCLUDED.stream_id`,
    [...keyOf(receipt), serverNameOf(receipt.userId) ?? "", receipt.eventId, Math.trunc(receipt.ts), streamId],
  );
  if (receipt.threadId === "") return;
  await execute(
    tx,
    `DELETE FROM receipts WHERE room_id = $1 AND user_id = $2 AND thread_id <> '' AND stream_id < (
       SELECT stream_id FROM receipts WHERE room_id = $1 AND user_id = $2 AND thread_id <> ''
       ORDER BY stream_id DESC OFFSET $3 LIMIT 1)`,
    [receipt.roomId, receipt.userId, MAX_THREADS - 1],
  );
}

/** Whether one more reader of the server may be believed who is no member that we know of. */
export async function hasPlaceForReader(c: Connection, roomId: RoomId, server: ServerName): Promise<boolean> {
  const row = await queryRow<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM (
       SELECT FROM receipts WHERE room_id = $1 AND server_name = $2 AND NOT EXISTS (
         SELECT FROM current_memberships known
         WHERE known.room_id = receipts.room_id AND known.user_id = receipts.user_id)
       LIMIT $3) AS unknown`,
    [roomId, server, MAX_UNKNOWN_READERS],
  );
  return (row?.count ?? 0) < MAX_UNKNOWN_READERS;
}

/** More than a client can show of a room that it sees for the first time. */
const MAX_RECEIPTS_OF_ROOM = 1_000;

/** Of whom it has turned out that they are no members, the receipts are not shown. */
const IS_BELIEVED = `(
  EXISTS (SELECT FROM current_memberships known
    WHERE known.room_id = receipts.room_id AND known.user_id = receipts.user_id)
  OR EXISTS (SELECT FROM partial_state_rooms partial WHERE partial.room_id = receipts.room_id))`;

/** What a user may see of the rooms' new receipts: the newest of each room, and all of their own; oldest first. */
export async function changedReceipts(
  c: Connection,
  rooms: RoomsSince & { readonly viewer: UserId },
): Promise<readonly Receipt[]> {
  const rows = await queryRows<Omit<Receipt, "ts"> & { ts: bigint }>(
    c,
    `SELECT room_id AS "roomId", user_id AS "userId", receipt_type AS type, thread_id AS "threadId",
       event_id AS "eventId", ts FROM (
         SELECT receipts.*, row_number() OVER (PARTITION BY room_id ORDER BY stream_id DESC) AS rank
         FROM unnest($1::text[], $2::bigint[]) AS asked (room_id, since) JOIN receipts USING (room_id)
         WHERE stream_id > since AND stream_id <= $3 AND (receipt_type <> 'm.read.private' OR user_id = $4)
           AND ${IS_BELIEVED}) AS ranked
     WHERE rank <= $5 OR user_id = $4 ORDER BY stream_id, thread_id DESC`,
    [rooms.roomIds, rooms.since, rooms.to, rooms.viewer, MAX_RECEIPTS_OF_ROOM],
  );
  return rows.map((row) => ({ ...row, ts: Number(row.ts) }));
}
