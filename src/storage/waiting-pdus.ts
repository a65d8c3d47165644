import { prevEventIds, type Event } from "../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonValue } from "../matrix/json.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import { CLOCKS_DIFFER_MS } from "./time-left.ts";

/** What waits for a join or for a key has not been checked yet, and stands under an id of its own. */
type WaitingReason = "join-under-way" | "missing-keys" | "missing-prev-events";

/** A PDU that can't be handled yet. Times are milliseconds since the epoch. */
export interface WaitingPdu {
  readonly eventId: EventId;
  readonly roomId: RoomId;
  readonly origin: ServerName;
  readonly pdu: JsonValue;
  readonly reason: WaitingReason;
  readonly receivedAt: number;
  readonly attempts: number;
  readonly retryAt: number;
  /** It was not sent to us: it came with the answer to a question for another event's past. */
  readonly fromGap: boolean;
}

/** What is said of a PDU that begins to wait. Its first turn (`retryAt`) is at once, unless it says otherwise. */
export type PduToKeep = Omit<WaitingPdu, "attempts" | "retryAt" | "fromGap"> & {
  readonly retryAt?: number;
  readonly fromGap?: boolean;
};

interface WaitingRow {
  readonly event_id: EventId;
  readonly room_id: RoomId;
  readonly origin: ServerName;
  readonly pdu: string;
  readonly reason: WaitingReason;
  readonly received_at: Date;
  readonly attempts: number;
  readonly retry_at: Date;
  readonly from_gap: boolean;
}

const COLUMNS = "event_id, room_id, origin, pdu, reason, received_at, attempts, retry_at, from_gap";

function waitingPduOf(row: WaitingRow): WaitingPdu {
  return {
    eventId: row.event_id,
    roomId: row.room_id,
    origin: row.origin,
    pdu: parseJson(row.pdu),
    reason: row.reason,
    receivedAt: row.received_at.getTime(),
    attempts: row.attempts,
    retryAt: row.retry_at.getTime(),
    fromGap: row.from_gap,
  };
}

/** Keeps the PDU; one that waits already stays as it is, but for its reason, and for its turn if it is kept for a join. */
export async function addWaitingPdu(c: Connection, waiting: PduToKeep): Promise<void> {
  await execute(
    c,
    `INSERT INTO waiting_pdus (event_id, room_id, origin, pdu, reason, received_at, retry_at, from_gap)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
     ON CONFLICT (event_id) DO UPDATE SET reason = EXCLUDED.reason,
       from_gap = waiting_pdus.from_gap AND EXCLUDED.from_gap, retry_at = CASE EXCLUDED.reason
       WHEN 'join-under-way' THEN EXCLUDED.retry_at ELSE waiting_pdus.retry_at END`,
    [
      waiting.eventId,
      waiting.roomId,
      waiting.origin,
      stringifyJson(waiting.pdu),
      waiting.reason,
      new Date(waiting.receivedAt),
      new Date(waiting.retryAt ?? waiting.receivedAt),
      waiting.fromGap ?? false,
    ],
  );
}

/** A room's, in the order in which they came. */
export async function waitingPdusOf(
  c: Connection,
  roomId: RoomId,
  filter: { readonly reason?: WaitingReason; readonly limit?: number } = {},
): Promise<readonly WaitingPdu[]> {
  const rows = await queryRows<WaitingRow>(
    c,
    `SELECT ${COLUMNS} FROM waiting_pdus WHERE room_id = $1 AND ($2::text IS NULL OR reason = $2)
     ORDER BY received_at, event_id COLLATE "C" LIMIT $3`,
    [roomId, filter.reason ?? null, filter.limit ?? null],
  );
  return rows.map(waitingPduOf);
}

/** Those whose time has come, in the order in which they came; without those of some rooms, or of one room only. */
export async function dueWaitingPdus(
  c: Connection,
  due: {
    readonly now: number;
    readonly limit: number;
    readonly exceptRooms?: readonly RoomId[];
    readonly onlyRoom?: RoomId;
    /** Whoever has longer to go was told so by a clock that was ahead. */
    readonly longestMs?: number;
  },
): Promise<readonly WaitingPdu[]> {
  const rows = await queryRows<WaitingRow>(
    c,
    `SELECT ${COLUMNS} FROM waiting_pdus
     WHERE (retry_at <= $1 OR retry_at > $5) AND room_id <> ALL ($3::text[]) AND ($4::text IS NULL OR room_id = $4)
     ORDER BY received_at, event_id COLLATE "C" LIMIT $2`,
    [
      new Date(due.now),
      due.limit,
      due.exceptRooms ?? [],
      due.onlyRoom ?? null,
      due.longestMs === undefined ? null : new Date(due.now + due.longestMs + CLOCKS_DIFFER_MS),
    ],
  );
  return rows.map(waitingPduOf);
}

/** Sets how often it has failed, and when it has its next turn (milliseconds). */
export async function postponeWaitingPdu(
  c: Connection,
  eventId: EventId,
  { attempts, retryAt }: Pick<WaitingPdu, "attempts" | "retryAt">,
): Promise<void> {
  await execute(c, `UPDATE waiting_pdus SET attempts = $2, retry_at = $3 WHERE event_id = $1`, [
    eventId,
    attempts,
    new Date(retryAt),
  ]);
}

/** How often that one of the events has failed that has failed least; undefined where none of them waits. */
export async function fewestAttempts(c: Connection, ids: readonly EventId[]): Promise<number | undefined> {
  const row = await queryRow<{ fewest: number | null }>(
    c,
    `SELECT min(attempts) AS fewest FROM waiting_pdus WHERE event_id = ANY ($1::text[])`,
    [ids],
  );
  return row?.fewest ?? undefined;
}

export async function deleteWaitingPdu(c: Connection, eventId: EventId): Promise<void> {
  await execute(c, `DELETE FROM waiting_pdus WHERE event_id = $1`, [eventId]);
}

/** Of a room that was left, what lacks its past is of no use any more; what a join keeps stays. */
export async function deleteHopelessPdus(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(tx, `DELETE FROM waiting_pdus WHERE room_id = $1 AND reason = 'missing-prev-events'`, [roomId]);
}

/** Unless it was kept once more since it was read, for a join that has begun meanwhile. */
export async function deleteKeptPdu(c: Connection, kept: Pick<WaitingPdu, "eventId" | "retryAt">): Promise<void> {
  await execute(c, `DELETE FROM waiting_pdus WHERE event_id = $1 AND retry_at = $2`, [
    kept.eventId,
    new Date(kept.retryAt),
  ]);
}

/** As {@link settleWaitingPdus}, for one event. */
export async function settleWaitingPdu(c: Connection, event: Event, now: number): Promise<void> {
  await settleWaitingPdus(c, [event], now);
}

/**
 * Events wait no more, and those that name one of them have their turn at `now` (milliseconds), however often
 * they failed. What was told of the states that they build on has done its service, but where a resync may work with it.
 */
export async function settleWaitingPdus(c: Connection, events: readonly Event[], now: number): Promise<void> {
  // Naming one anywhere is enough: a turn too many does no harm.
  await execute(
    c,
    `WITH settled AS (DELETE FROM waiting_pdus WHERE event_id = ANY ($1::text[]) RETURNING event_id, room_id),
       past AS (
         SELECT settled.room_id, edge.prev_event_id
         FROM settled JOIN unnest($4::text[], $5::text[]) AS edge (event_id, prev_event_id) USING (event_id)),
       told AS (
         DELETE FROM resync_state_ids told USING past
         WHERE told.room_id = past.room_id AND told.event_id = past.prev_event_id
           AND NOT EXISTS (SELECT 1 FROM partial_state_rooms partial WHERE partial.room_id = told.room_id))
     UPDATE waiting_pdus SET retry_at = $3
     WHERE room_id = ANY ($2::text[]) AND event_id <> ALL ($1::text[]) AND retry_at > $3
       AND EXISTS (SELECT 1 FROM unnest($1::text[], $2::text[]) AS named (id, of_room)
         WHERE named.of_room = room_id AND strpos(pdu, '"' || named.id || '"') > 0)`,
    [
      events.map(({ eventId }) => eventId),
      events.map(({ roomId }) => roomId),
      new Date(now),
      events.flatMap(({ eventId, pdu }) => prevEventIds(pdu).map(() => eventId)),
      events.flatMap(({ pdu }) => prevEventIds(pdu)),
    ],
  );
}

/**
 * Deletes what waits in a room beyond `most`: of the server that has most there, what came first.
 *
 * @returns the ids of what was deleted
 */
export async function dropExcessWaitingPdus(c: Connection, roomId: RoomId, most: number): Promise<readonly EventId[]> {
  const dropped: EventId[] = [];
  for (let excess = (await countWaitingPdus(c, roomId)) - most; excess > 0; excess -= 1) {
    const row = await queryRow<{ id: EventId }>(
      c,
      `DELETE FROM waiting_pdus WHERE event_id = (
         SELECT event_id FROM waiting_pdus WHERE room_id = $1 AND origin = (
           SELECT origin FROM waiting_pdus WHERE room_id = $1 GROUP BY origin
           ORDER BY count(*) DESC, origin COLLATE "C" LIMIT 1)
         ORDER BY received_at, event_id COLLATE "C" LIMIT 1)
       RETURNING event_id AS id`,
      [roomId],
    );
    if (row !== undefined) dropped.push(row.id);
  }
  return dropped;
}

/** All that wait, of whatever room. */
export async function countAllWaitingPdus(c: Connection): Promise<number> {
  const row = await queryRow<{ count: number }>(c, `SELECT count(*)::integer AS count FROM waiting_pdus`);
  return row?.count ?? 0;
}

export async function countWaitingPdus(c: Connection, roomId: RoomId): Promise<number> {
  const rows = await queryRows<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM waiting_pdus WHERE room_id = $1`,
    [roomId],
  );
  return rows[0]?.count ?? 0;
}

/** Those of the events that wait; with `attemptsBelow`, only those that have failed fewer times. */
export async function whichWait(
  c: Connection,
  ids: readonly EventId[],
  filter: { readonly attemptsBelow?: number } = {},
): Promise<Set<EventId>> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT event_id AS id FROM waiting_pdus WHERE event_id = ANY ($1::text[]) AND ($2::integer IS NULL OR attempts < $2)`,
    [ids, filter.attemptsBelow ?? null],
  );
  return new Set(rows.map((row) => row.id));
}
