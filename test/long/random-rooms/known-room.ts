import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateEntries, type StateKey } from "../../../src/matrix/state.ts";
import type { Database } from "../../../src/storage/database.ts";
import { members } from "../../../src/storage/memberships.ts";
import { queryRow, queryRows } from "../../../src/storage/query.ts";
import { forwardExtremities, loadRoom } from "../../../src/storage/rooms.ts";
import { loadState } from "../../../src/storage/state-snapshots.ts";

/** An event in a server's timeline, as the server judged it. */
export interface KnownEvent {
  readonly eventId: EventId;
  readonly rejection: string | null;
  readonly softFailed: boolean;
  readonly stateBefore: ReadonlyMap<StateKey, EventId>;
}

/** All that a server knows of a room. */
export interface KnownRoom {
  /** In the order of their arrival. */
  readonly timeline: readonly KnownEvent[];
  readonly extremities: readonly EventId[];
  readonly currentState: ReadonlyMap<StateKey, EventId>;
  /** Each user's membership and its event, as look-ups by user and server find them. */
  readonly members: ReadonlyMap<UserId, string>;
  /** Events whose rejection a resync turned round. */
  readonly changed: number;
  /** Rows of the room that a fully joined one has not, by table. */
  readonly leftovers: Readonly<Record<string, number>>;
}

/**
 * Tables in which nothing of a room is left when its state is full and nothing waits. A process that ends during a join
 * leaves its note in joins_under_way, which is forgotten after half an hour.
 */
const PASSING_TABLES = [
  "partial_state_rooms",
  "partial_state_rooms_servers",
  "partial_state_events",
  "resync_state_ids",
  "resync_control",
  "waiting_pdus",
] as const;

export async function knownRoom(database: Database, roomId: RoomId): Promise<KnownRoom> {
  const { pool } = database;
  const rows = await queryRows<{ id: EventId; rejection: string | null; softFailed: boolean; before: bigint | null }>(
    pool,
    `SELECT event_id AS id, rejection, soft_failed AS "softFailed", state_before AS before FROM events
     WHERE room_id = $1 AND NOT outlier AND stream_id > 0 ORDER BY stream_id`,
    [roomId],
  );
  const timeline: KnownEvent[] = [];
  for (const { id: eventId, rejection, softFailed, before } of rows) {
    timeline.push({ eventId, rejection, softFailed, stateBefore: await stateOf(database, before) });
  }
  const room = await loadRoom(pool, roomId);
  const counts = PASSING_TABLES.map(
    (table) => `(SELECT count(*)::integer FROM ${table} WHERE room_id = $1) AS ${table}`,
  );
  const leftovers = await queryRow<Record<string, number>>(pool, `SELECT ${counts.join(", ")}`, [roomId]);
  return {
    timeline,
    extremities: (await forwardExtremities(pool, roomId)).toSorted(),
    currentState: await stateOf(database, room?.currentSnapshotId ?? null),
    members: new Map(
      (await members(pool, roomId)).map(({ userId, membership, eventId }) => [userId, `${membership} ${eventId}`]),
    ),
    changed: await changedRejections(database, roomId),
    leftovers: Object.fromEntries(Object.entries(leftovers ?? {}).filter(([, count]) => count > 0)),
  };
}

async function stateOf(database: Database, snapshotId: bigint | null): Promise<ReadonlyMap<StateKey, EventId>> {
  return snapshotId === null ? new Map() : new Map(stateEntries(await loadState(database, snapshotId)));
}

async function changedRejections({ pool }: Database, roomId: RoomId): Promise<number> {
  const row = await queryRow<{ count: number }>(
    pool,
    `SELECT count(*)::integer AS count FROM un_partial_stated_event_stream JOIN events USING (event_id)
     WHERE room_id = $1 AND rejection_status_changed`,
    [roomId],
  );
  return row?.count ?? 0;
}
