import type { RoomId } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf } from "./events.ts";
import type { StoredEvent } from "./events.ts";
import { queryRows } from "./query.ts";
import type { Connection } from "./query.ts";
import type { StreamRange } from "./streams.ts";

/** Those of the rooms of which clients have anything to be told of the range: events, state, the end of a resync. */
export async function changedRooms(
  c: Connection,
  roomIds: readonly RoomId[],
  range: StreamRange,
): Promise<Set<RoomId>> {
  const rows = await queryRows<{ id: RoomId }>(
    c,
    `SELECT id FROM (
         SELECT room_id AS id FROM events WHERE stream_id > $2 AND stream_id <= $3
       UNION
         SELECT room_id FROM current_state_delta_stream WHERE stream_id > $2 AND stream_id <= $3
       UNION
         SELECT room_id FROM un_partial_stated_room_stream WHERE stream_id > $2 AND stream_id <= $3
       UNION
         SELECT events.room_id FROM un_partial_stated_event_stream stream JOIN events USING (event_id)
         WHERE stream.stream_id > $2 AND stream.stream_id <= $3 AND rejection_status_changed) AS changed
     WHERE id = ANY ($1::text[])`,
    [roomIds, range.from, range.to],
  );
  return new Set(rows.map((row) => row.id));
}

/**
 * Events of before the range that were refused on partial state and accepted, within the range, by the full one; in
 * the order of arrival.
 */
export async function restoredEvents(
  c: Connection,
  roomId: RoomId,
  range: StreamRange,
): Promise<readonly StoredEvent[]> {
  const rows = await queryRows<Parameters<typeof storedEventOf>[0]>(
    c,
    `SELECT DISTINCT ${EVENT_COLUMNS} FROM un_partial_stated_event_stream stream JOIN events e USING (event_id)
     WHERE stream.stream_id > $2 AND stream.stream_id <= $3 AND stream.rejection_status_changed
       AND e.room_id = $1 AND e.stream_id <= $2 AND e.rejection IS NULL AND NOT e.soft_failed
     ORDER BY e.stream_id`,
    [roomId, range.from, range.to],
  );
  return rows.map(storedEventOf);
}
