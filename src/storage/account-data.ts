import type { RoomId, UserId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject } from "../matrix/json.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { RoomsSince } from "./room-ranges.ts";
import { takeStreamPositions, type StreamRange } from "./streams.ts";

/** What a client keeps for itself, of the user as a whole or of one of their rooms. */
export interface AccountDataPlace {
  readonly userId: UserId;
  readonly roomId?: RoomId | undefined;
  readonly type: string;
}

interface AccountData {
  readonly type: string;
  readonly content: JsonObject;
}

export async function storeAccountData(tx: Connection, place: AccountDataPlace, content: JsonObject): Promise<void> {
  const streamId = await takeStreamPositions(tx, 1);
  await execute(
    tx,
    `INSERT INTO account_data (user_id, room_id, type, content, stream_id) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = EXCLUDED.content, stream_id = EXCLUDED.stream_id`,
    [place.userId, place.roomId ?? "", place.type, stringifyJson(content), streamId],
  );
}

export async function loadAccountData(c: Connection, place: AccountDataPlace): Promise<JsonObject | undefined> {
  const row = await queryRow<{ content: string }>(
    c,
    `SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3`,
    [place.userId, place.roomId ?? "", place.type],
  );
  return row && (parseJson(row.content) as JsonObject);
}

/** What has changed within the range that belongs to no room, oldest first. */
export async function changedAccountData(
  c: Connection,
  userId: UserId,
  range: StreamRange,
): Promise<readonly AccountData[]> {
  const rows = await queryRows<{ type: string; content: string }>(
    c,
    `SELECT type, content FROM account_data
     WHERE user_id = $1 AND room_id = '' AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id`,
    [userId, range.from, range.to],
  );
  return rows.map(({ type, content }) => ({ type, content: parseJson(content) as JsonObject }));
}

/** The same of the rooms. */
export async function changedRoomAccountData(
  c: Connection,
  rooms: RoomsSince & { readonly viewer: UserId },
): Promise<readonly (AccountData & { readonly roomId: RoomId })[]> {
  const rows = await queryRows<{ roomId: RoomId; type: string; content: string }>(
    c,
    `SELECT room_id AS "roomId", type, content
     FROM unnest($1::text[], $2::bigint[]) AS asked (room_id, since) JOIN account_data USING (room_id)
     WHERE user_id = $4 AND stream_id > since AND stream_id <= $3 ORDER BY stream_id`,
    [rooms.roomIds, rooms.since, rooms.to, rooms.viewer],
  );
  return rows.map(({ roomId, type, content }) => ({ roomId, type, content: parseJson(content) as JsonObject }));
}
