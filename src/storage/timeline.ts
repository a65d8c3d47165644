import type { RoomId } from "../matrix/identifiers.ts";
import { EVENT_COLUMNS, storedEventOf, type StoredEvent } from "./events.ts";
import { queryRow, queryRows, type Connection } from "./query.ts";

/**
 * Positions stand between events: position n is behind the event with stream id n. Forward from n gives the events
 * with larger ids, backward from n those with n and smaller.
 */
interface TimelineRange {
  readonly from?: bigint | undefined;
  /** Where to stop; forward it is included, backward it isn't. */
  readonly to?: bigint | undefined;
  readonly limit: number;
  readonly direction: "forward" | "backward";
  /** Rejected and soft-failed events too, which no client may see. */
  readonly hidden?: boolean;
}

/** A room's events in the order of arrival, or from the newest back. */
export async function timeline(c: Connection, roomId: RoomId, range: TimelineRange): Promise<readonly StoredEvent[]> {
  const forward = range.direction === "forward";
  const [above, upTo] = forward ? [range.from, range.to] : [range.to, range.from];
  const rows = await queryRows<Parameters<typeof storedEventOf>[0]>(
    c,
    `SELECT ${EVENT_COLUMNS} FROM events e
     WHERE room_id = $1 AND stream_id IS NOT NULL
       AND ($2::bigint IS NULL OR stream_id > $2) AND ($3::bigint IS NULL OR stream_id <= $3)
       AND ($4::boolean OR (rejection IS NULL AND NOT soft_failed))
     ORDER BY stream_id ${forward ? "ASC" : "DESC"} LIMIT $5`,
    [roomId, above ?? null, upTo ?? null, range.hidden ?? false, range.limit],
  );
  return rows.map(storedEventOf);
}

/** The events that stand first in a room's timeline, refused ones too. */
export async function oldestTimelineEvents(
  c: Connection,
  roomId: RoomId,
  limit: number,
): Promise<readonly StoredEvent[]> {
  return await timeline(c, roomId, { direction: "forward", limit, hidden: true });
}

/** Stream ids for history fetched backwards, each smaller than all before it: the newest event takes the first. */
export async function takeBackfillPositions(tx: Connection, count: number): Promise<readonly bigint[]> {
  const rows = await queryRows<{ position: bigint }>(
    tx,
    `SELECT nextval('backfill_positions') AS position FROM generate_series(1, $1)`,
    [count],
  );
  return rows.map((row) => row.position);
}

/**
 * The depth at which we came into a room: of the join whose resync is under way, else of the first event that we got
 * with a state. What lies before is history.
 */
export async function depthOfArrival(c: Connection, roomId: RoomId): Promise<bigint> {
  const row = await queryRow<{ depth: bigint | null }>(
    c,
    `SELECT coalesce(
       (SELECT depth FROM partial_state_rooms partial JOIN events ON event_id = partial.join_event_id
        WHERE partial.room_id = $1),
       (SELECT depth FROM events WHERE room_id = $1 AND stream_id > 0 AND state_after IS NOT NULL
        ORDER BY stream_id LIMIT 1)) AS depth`,
    [roomId],
  );
  return row?.depth ?? 0n;
}
