import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { queryRow, queryRows, type Connection } from "./query.ts";

interface StateEntry {
  readonly eventId: EventId;
  readonly type: string;
  readonly stateKey: string;
  readonly rejected: boolean;
}

/** What the state events among the ids stand for, without reading them; other rooms' and unknown ids are left out. */
export async function loadStateEntries(
  c: Connection,
  roomId: RoomId,
  ids: readonly EventId[],
): Promise<readonly StateEntry[]> {
  return queryRows<{ eventId: EventId; type: string; stateKey: string; rejected: boolean }>(
    c,
    `SELECT event_id AS "eventId", type, state_key AS "stateKey", rejection IS NOT NULL AS rejected
     FROM events WHERE event_id = ANY ($2::text[]) AND room_id = $1 AND state_key IS NOT NULL`,
    [roomId, ids],
  );
}

/** How many entries of a snapshot (its parents' included) name an event that is not stored. */
export async function countUnstoredEntries(c: Connection, snapshotId: bigint): Promise<number> {
  const row = await queryRow<{ count: number }>(
    c,
    `WITH RECURSIVE chain (snapshot_id) AS (
       SELECT $1::bigint
       UNION ALL
       SELECT parent_id FROM state_snapshots JOIN chain USING (snapshot_id) WHERE parent_id IS NOT NULL)
     SELECT count(*)::integer AS count FROM state_snapshot_entries entry JOIN chain USING (snapshot_id)
     WHERE event_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM events WHERE events.event_id = entry.event_id)`,
    [snapshotId],
  );
  return row?.count ?? 0;
}
