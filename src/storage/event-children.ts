import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { queryRow, queryRows, type Connection } from "./query.ts";

/** Whether an accepted event of the timeline builds on this one. */
export async function hasAcceptedChild(c: Connection, roomId: RoomId, eventId: EventId): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `SELECT EXISTS (
       SELECT 1 FROM events WHERE room_id = $1 AND stream_id IS NOT NULL AND prev_event_ids @> ARRAY[$2::text]
         AND rejection IS NULL AND NOT soft_failed) AS found`,
    [roomId, eventId],
  );
  return row?.found ?? false;
}

/** The accepted events from a position on, upon which no accepted one builds: the forward extremities, recomputed. */
export async function acceptedLeaves(c: Connection, roomId: RoomId, from: bigint): Promise<readonly EventId[]> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `WITH accepted AS (
       SELECT event_id, prev_event_ids FROM events
       WHERE room_id = $1 AND stream_id >= $2 AND rejection IS NULL AND NOT soft_failed)
     SELECT event_id AS id FROM accepted
     WHERE event_id NOT IN (SELECT unnest(prev_event_ids) FROM accepted) ORDER BY event_id COLLATE "C"`,
    [roomId, from],
  );
  return rows.map((row) => row.id);
}
