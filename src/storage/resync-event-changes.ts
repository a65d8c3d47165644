import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import { execute, queryRows, type Connection } from "./query.ts";

/** What the full state has made of an event that was judged on partial state. */
export interface ResyncEventChange {
  readonly eventId: EventId;
  /** `rejected`: accepted until then; `accepted`: rejected until then; `soft-failed`: in the room, but not shown. */
  readonly change: "rejected" | "accepted" | "soft-failed";
  /** The auth rule that refuses the event now, or did until then. */
  readonly rule: string;
  readonly reason: string;
}

/** All changes of one transaction share a position. @param at milliseconds since the epoch */
export async function appendResyncEventChanges(
  tx: Connection,
  place: { readonly streamId: bigint; readonly roomId: RoomId; readonly at: number },
  changes: readonly ResyncEventChange[],
): Promise<void> {
  if (changes.length === 0) return;
  await execute(
    tx,
    `INSERT INTO resync_event_changes (stream_id, room_id, at, event_id, change, rule, reason)
     SELECT $1, $2, $3, * FROM unnest($4::text[], $5::text[], $6::text[], $7::text[])`,
    [
      place.streamId,
      place.roomId,
      new Date(place.at),
      changes.map((one) => one.eventId),
      changes.map((one) => one.change),
      changes.map((one) => one.rule),
      changes.map((one) => one.reason),
    ],
  );
}

interface StoredChange extends ResyncEventChange {
  readonly streamId: bigint;
  readonly at: Date;
  readonly type: string;
  readonly stateKey: string | null;
  readonly sender: UserId;
}

/**
 * What the resyncs of a room have changed, oldest first: so many, and those that share the last one's position, so that
 * the next page can begin behind it.
 */
export async function resyncEventChanges(
  c: Connection,
  roomId: RoomId,
  { after = 0n, limit }: { readonly after?: bigint; readonly limit: number },
): Promise<readonly StoredChange[]> {
  return queryRows<StoredChange & { eventId: EventId }>(
    c,
    `SELECT change.event_id AS "eventId", change, rule, reason, change.stream_id AS "streamId", at,
       type, state_key AS "stateKey", sender
     FROM resync_event_changes change JOIN events USING (event_id)
     WHERE change.room_id = $1 AND change.stream_id > $2
     ORDER BY change.stream_id FETCH FIRST $3 ROWS WITH TIES`,
    [roomId, after, limit],
  );
}
