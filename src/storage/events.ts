import {
  isStateEvent,
  prevEventIds,
  authEventIds,
  depthOf,
  originServerTsOf,
  type Event,
  type Pdu,
} from "../matrix/event.ts";
import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../matrix/json.ts";
import type { Membership } from "./memberships.ts";
import { noteRedactions } from "./note-redactions.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** An event with what we have made of it. */
export interface StoredEvent extends Event {
  /** Known only as part of some state or auth chain; its place in the room's graph is unknown. */
  readonly outlier: boolean;
  readonly softFailed: boolean;
  /** The auth rule that refused it, and why; null: accepted. */
  readonly rejection: string | null;
  /** Order of arrival; null for outliers, negative for history fetched backwards. */
  readonly streamId: bigint | null;
  readonly stateBefore: bigint | null;
  readonly stateAfter: bigint | null;
}

/**
 * Whether the state after a prev_event is known here: not of outliers, of history, nor of what was abandoned partial.
 * An event of another room is never the past of one of this room, whatever its maker says: that room's state must not
 * get in here.
 */
export function hasState(
  event: StoredEvent | undefined,
  roomId: RoomId,
): event is StoredEvent & { readonly stateAfter: bigint } {
  return event !== undefined && event.roomId === roomId && !event.outlier && event.stateAfter !== null;
}

interface OutlierToStore {
  readonly event: Event;
  readonly rejection: string | null;
  /** Its JSON where that is at hand, to save writing it again. */
  readonly pduText?: string;
}

export interface TimelineEventToStore {
  readonly event: Event;
  readonly rejection: string | null;
  readonly softFailed: boolean;
  readonly stateBefore: bigint | null;
  readonly stateAfter: bigint | null;
  readonly streamId: bigint;
}

interface EventRow {
  readonly event_id: EventId;
  readonly room_id: RoomId;
  readonly pdu: string;
  readonly outlier: boolean;
  readonly rejection: string | null;
  readonly soft_failed: boolean;
  readonly stream_id: bigint | null;
  readonly state_before: bigint | null;
  readonly state_after: bigint | null;
}

/** What {@link storedEventOf} reads, of a table or alias `e`. */
export const EVENT_COLUMNS =
  "e.event_id, e.room_id, e.pdu, e.outlier, e.rejection, e.soft_failed, e.stream_id, e.state_before, e.state_after";

export function storedEventOf(row: EventRow): StoredEvent {
  return {
    eventId: row.event_id,
    roomId: row.room_id,
    // It was checked when it was stored.
    pdu: parseJson(row.pdu) as Pdu,
    rejected: row.rejection !== null,
    outlier: row.outlier,
    softFailed: row.soft_failed,
    rejection: row.rejection,
    streamId: row.stream_id,
    stateBefore: row.state_before,
    stateAfter: row.state_after,
  };
}

// Rows a statement: large enough to save round trips, small enough that building it stalls no one else.
const INSERT_CHUNK = 1_000;
const MAX_INT8 = 2n ** 63n - 1n;
const MEMBERSHIPS: readonly unknown[] = ["ban", "invite", "join", "knock", "leave"] satisfies Membership[];

/** PostgreSQL's notation of an array, for a column of arrays inside an array of rows (which unnest would flatten). */
function arrayLiteral(ids: readonly string[]): string {
  return `{${ids.map((id) => `"${id.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`).join(",")}}`;
}

/** Room versions before 6 allow numbers of any size and kind; the column only helps to search. */
function timestampColumn(pdu: Pdu): bigint {
  const value = originServerTsOf(pdu);
  if (Number.isNaN(value)) return 0n;
  return BigInt(Math.trunc(Math.min(Math.max(value, Number.MIN_SAFE_INTEGER), Number.MAX_SAFE_INTEGER)));
}

function depthColumn(pdu: Pdu): bigint {
  const depth = depthOf(pdu);
  return depth > MAX_INT8 ? MAX_INT8 : depth;
}

function membershipColumn(pdu: Pdu): string | null {
  const membership = pdu.content["membership"];
  const known = pdu.type === "m.room.member" && typeof membership === "string" && MEMBERSHIPS.includes(membership);
  return known ? membership : null;
}

/** The columns that follow from the event alone, one array each, in the order of {@link INSERT_COLUMNS}. */
function columnsOf(entries: readonly OutlierToStore[]): unknown[] {
  const pdus = entries.map((entry) => entry.event.pdu);
  return [
    entries.map((entry) => entry.event.eventId),
    entries.map((entry) => entry.event.roomId),
    pdus.map((pdu) => pdu.type),
    pdus.map((pdu) => (isStateEvent(pdu) ? pdu.state_key : null)),
    pdus.map((pdu) => pdu.sender),
    pdus.map(membershipColumn),
    pdus.map(depthColumn),
    pdus.map(timestampColumn),
    pdus.map((pdu) => arrayLiteral(prevEventIds(pdu))),
    pdus.map((pdu) => arrayLiteral(authEventIds(pdu))),
    entries.map((entry) => entry.pduText ?? stringifyJson(entry.event.pdu)),
    entries.map((entry) => entry.rejection),
  ];
}

const INSERT_COLUMNS = `event_id, room_id, type, state_key, sender, membership, depth, origin_server_ts, prev_event_ids,
  auth_event_ids, pdu, rejection`;
const SELECT_COLUMNS = `event_id, room_id, type, state_key, sender, membership, depth, origin_server_ts,
  prev_event_ids::text[], auth_event_ids::text[], pdu, rejection`;
/** All that was made of an outlier goes with it: a verdict on one event must never stand beside the content of another. */
const REPLACED_COLUMNS = INSERT_COLUMNS.split(/,\s*/)
  .filter((column) => column !== "event_id")
  .map((column) => `${column} = EXCLUDED.${column}`)
  .join(", ");
const ARRAYS = `$1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
  $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[]`;

/**
 * Stores events outside the timeline; those that are already there, in whatever form, stay as they are.
 *
 * @returns how many were new
 */
export async function insertOutliers(tx: Connection, outliers: readonly OutlierToStore[]): Promise<number> {
  // Who stores the same events at the same time waits for us, or we for them; in one order, never both.
  const events = outliers.toSorted((a, b) => (a.event.eventId < b.event.eventId ? -1 : 1));
  let inserted = 0;
  let running: Promise<number> = Promise.resolve(0);
  for (let start = 0; start < events.length; start += INSERT_CHUNK) {
    // PostgreSQL works on one chunk while the next is made.
    const columns = columnsOf(events.slice(start, start + INSERT_CHUNK));
    inserted += await running;
    running = insertOutlierChunk(tx, columns);
    // Should making the next chunk fail, nobody waits for this one any more.
    running.catch(() => undefined);
  }
  return inserted + (await running);
}

function insertOutlierChunk(tx: Connection, columns: readonly unknown[]): Promise<number> {
  return execute(
    tx,
    `INSERT INTO events (${INSERT_COLUMNS}, outlier) SELECT ${SELECT_COLUMNS}, true
     FROM unnest(${ARRAYS}) AS new (${INSERT_COLUMNS})
     ON CONFLICT (event_id) DO NOTHING`,
    columns,
  );
}

/**
 * Stores an event with its place in the timeline; an outlier that is already there becomes this timeline event, whose
 * content it may have lacked.
 *
 * @returns false if it is a timeline event already: then nothing is changed
 */
export async function insertTimelineEvent(tx: Connection, entry: TimelineEventToStore): Promise<boolean> {
  return (await insertTimelineEvents(tx, [entry])) === 1;
}

/**
 * The same for several at once, a transaction's worth.
 *
 * @returns how many were no timeline events before
 */
export async function insertTimelineEvents(tx: Connection, toStore: readonly TimelineEventToStore[]): Promise<number> {
  // As with outliers: in one order, so that nobody who stores the same events waits for us while we wait for them.
  const entries = toStore.toSorted((a, b) => (a.event.eventId < b.event.eventId ? -1 : 1));
  const written = await execute(
    tx,
    `INSERT INTO events (${INSERT_COLUMNS}, outlier, soft_failed, stream_id, state_before, state_after)
     SELECT ${SELECT_COLUMNS}, false, new.soft_failed, new.stream_id, new.state_before, new.state_after
     FROM unnest(${ARRAYS}, $13::boolean[], $14::bigint[], $15::bigint[], $16::bigint[])
       AS new (${INSERT_COLUMNS}, soft_failed, stream_id, state_before, state_after)
     ON CONFLICT (event_id) DO UPDATE SET outlier = false, ${REPLACED_COLUMNS},
       soft_failed = EXCLUDED.soft_failed, stream_id = EXCLUDED.stream_id,
       state_before = EXCLUDED.state_before, state_after = EXCLUDED.state_after
     WHERE events.outlier`,
    [
      ...columnsOf(entries),
      entries.map((entry) => entry.softFailed),
      entries.map((entry) => entry.streamId),
      entries.map((entry) => entry.stateBefore),
      entries.map((entry) => entry.stateAfter),
    ],
  );
  await noteRedactions(
    tx,
    entries.map((entry) => entry.event),
  );
  return written;
}

/** Those of the events that we have. */
export async function loadEvents(c: Connection, ids: readonly EventId[]): Promise<Map<EventId, StoredEvent>> {
  const rows = await queryRows<EventRow>(c, `SELECT ${EVENT_COLUMNS} FROM events e WHERE event_id = ANY ($1::text[])`, [
    ids,
  ]);
  return new Map(rows.map((row) => [row.event_id, storedEventOf(row)]));
}

export async function loadEvent(c: Connection, id: EventId): Promise<StoredEvent | undefined> {
  const row = await queryRow<EventRow>(c, `SELECT ${EVENT_COLUMNS} FROM events e WHERE event_id = $1`, [id]);
  return row && storedEventOf(row);
}

/** The parameter of a statement, and its rows, are held several times over while it runs. */
const IDS_AT_ONCE = 20_000;

/** Those of the ids that we have, outliers and rejected ones included. */
export async function whichExist(c: Connection, ids: readonly EventId[]): Promise<Set<EventId>> {
  const existing = new Set<EventId>();
  for (let start = 0; start < ids.length; start += IDS_AT_ONCE) {
    const rows = await queryRows<{ id: EventId }>(
      c,
      `SELECT event_id AS id FROM events WHERE event_id = ANY ($1::text[])`,
      [ids.slice(start, start + IDS_AT_ONCE)],
    );
    for (const { id } of rows) existing.add(id);
  }
  return existing;
}

/** Why the auth rules have refused those of the events that they have. */
export async function rejectionsOf(
  c: Connection,
  ids: readonly EventId[],
): Promise<readonly { readonly eventId: EventId; readonly rejection: string }[]> {
  return queryRows<{ eventId: EventId; rejection: string }>(
    c,
    `SELECT event_id AS "eventId", rejection FROM events
     WHERE event_id = ANY ($1::text[]) AND rejection IS NOT NULL ORDER BY 1`,
    [ids],
  );
}
