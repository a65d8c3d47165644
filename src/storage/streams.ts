import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";
import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import { stateKeyOf, splitStateKey, type StateKey } from "../matrix/state.ts";
import type { Database } from "./database.ts";
import type { Membership } from "./memberships.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** The channel on which a commit tells its last position. */
const STREAM_CHANNEL = "fastjoin_stream";

/**
 * Takes `count` positions, one behind the other, and gives the first. Take them as the last step of a transaction,
 * right before the rows that carry them: everyone else who wants a position waits until it ends. So a reader who sees
 * a position has seen all that will ever stand before it.
 */
export async function takeStreamPositions(tx: Connection, count: number): Promise<bigint> {
  const row = await queryRow<{ last: bigint }>(
    tx,
    // The row is locked until the commit, and not seen by others before it.
    `UPDATE stream_position SET position = position + $1
     RETURNING position AS last, pg_notify($2, position::text)`,
    [count, STREAM_CHANNEL],
  );
  if (!row) throw new Error("the table stream_position has no row");
  return row.last - BigInt(count) + 1n;
}

/** Wakes those who wait for the stream when the transaction commits, without a position: for the outbox alone. */
export async function tellStream(tx: Connection): Promise<void> {
  await execute(tx, `SELECT pg_notify($1, position::text) FROM stream_position`, [STREAM_CHANNEL]);
}

/** The last position whose rows can be seen. */
export async function currentStreamPosition(c: Connection): Promise<bigint> {
  const row = await queryRow<{ position: bigint }>(c, `SELECT position FROM stream_position`);
  return row?.position ?? 0n;
}

interface ListenOptions {
  /** Told of each lost or refused connection; listening goes on by itself. */
  readonly onError?: (error: unknown) => void;
  readonly reconnectDelayMs?: number;
}

const RECONNECT_DELAY_MS = 500;

/**
 * Tells the newest position whenever a commit has taken one, from any process. After a lost connection the position
 * of the time of reconnecting is told, so that nothing is missed; positions may be told twice.
 *
 * @returns a function that ends it; resolved once the first connection listens
 */
export async function listenForStream(
  database: Database,
  onPosition: (position: bigint) => void,
  options: ListenOptions = {},
): Promise<() => Promise<void>> {
  const stopping = new AbortController();
  const first = await listen(database, onPosition);
  const loop = keepListening(first);

  async function keepListening(connected: pg.Client): Promise<void> {
    let client: pg.Client | undefined = connected;
    while (!stopping.signal.aborted) {
      if (client) await connectionLost(client, stopping.signal, options.onError);
      if (stopping.signal.aborted) break;
      const delay = options.reconnectDelayMs ?? RECONNECT_DELAY_MS;
      await sleep(delay, undefined, { signal: stopping.signal }).catch(() => undefined);
      client = await listen(database, onPosition).catch((error: unknown) => {
        options.onError?.(error);
        return undefined;
      });
    }
    await client?.end();
  }

  return async () => {
    stopping.abort();
    await loop;
  };
}

async function listen(database: Database, onPosition: (position: bigint) => void): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: database.url,
    application_name: "fastjoin listen",
    keepAlive: true,
  });
  // A client that has failed also says so by "end"; without a listener the error would end the process.
  client.on("error", () => undefined);
  client.on("notification", ({ payload }) => {
    if (payload !== undefined) onPosition(BigInt(payload));
  });
  try {
    await client.connect();
    await client.query(`LISTEN ${STREAM_CHANNEL}`);
    onPosition(await currentStreamPosition(client));
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** Resolved when the connection has ended, or when we are to stop. */
async function connectionLost(
  client: pg.Client,
  signal: AbortSignal,
  onError: ListenOptions["onError"],
): Promise<void> {
  try {
    await once(client, "end", { signal });
    onError?.(new Error("the connection that listens for stream positions was lost"));
  } catch (error) {
    // `once` rejects when we are to stop, and for an error of the connection, which "end" always follows.
    if (!signal.aborted) onError?.(error);
  }
}

/** Positions above `from` up to and with `to`. */
export interface StreamRange {
  readonly from: bigint;
  readonly to: bigint;
}

// ── Rooms and events whose full state has become known ──────────────────────────────────────────────────────────────

export async function appendUnPartialStatedRoom(tx: Connection, streamId: bigint, roomId: RoomId): Promise<void> {
  await execute(tx, `INSERT INTO un_partial_stated_room_stream (stream_id, room_id) VALUES ($1, $2)`, [
    streamId,
    roomId,
  ]);
}

/** Whether the room has become whole after a position. */
export async function unPartialStatedAfter(c: Connection, roomId: RoomId, position: bigint): Promise<boolean> {
  const row = await queryRow<{ found: boolean }>(
    c,
    `SELECT EXISTS (SELECT 1 FROM un_partial_stated_room_stream WHERE room_id = $1 AND stream_id > $2) AS found`,
    [roomId, position],
  );
  return row?.found ?? false;
}

export async function unPartialStatedRooms(
  c: Connection,
  range: StreamRange,
): Promise<readonly { readonly streamId: bigint; readonly roomId: RoomId }[]> {
  return queryRows<{ streamId: bigint; roomId: RoomId }>(
    c,
    `SELECT stream_id AS "streamId", room_id AS "roomId" FROM un_partial_stated_room_stream
     WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id`,
    [range.from, range.to],
  );
}

interface UnPartialStatedEvent {
  readonly streamId: bigint;
  readonly eventId: EventId;
  /** It was accepted and is rejected now, or the other way round. */
  readonly rejectionStatusChanged: boolean;
}

export async function appendUnPartialStatedEvents(
  tx: Connection,
  entries: readonly UnPartialStatedEvent[],
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO un_partial_stated_event_stream (stream_id, event_id, rejection_status_changed)
     SELECT * FROM unnest($1::bigint[], $2::text[], $3::boolean[])`,
    [
      entries.map(({ streamId }) => streamId),
      entries.map(({ eventId }) => eventId),
      entries.map(({ rejectionStatusChanged }) => rejectionStatusChanged),
    ],
  );
}

export async function unPartialStatedEvents(
  c: Connection,
  range: StreamRange,
): Promise<readonly UnPartialStatedEvent[]> {
  return queryRows<{ streamId: bigint; eventId: EventId; rejectionStatusChanged: boolean }>(
    c,
    `SELECT stream_id AS "streamId", event_id AS "eventId", rejection_status_changed AS "rejectionStatusChanged"
     FROM un_partial_stated_event_stream WHERE stream_id > $1 AND stream_id <= $2 ORDER BY stream_id`,
    [range.from, range.to],
  );
}

// ── Changes of current state ────────────────────────────────────────────────────────────────────────────────────────

export interface StateKeyChange {
  readonly key: StateKey;
  /** Null: nothing holds the key any more. */
  readonly eventId: EventId | null;
  /** Null: nothing held it before. */
  readonly previousEventId: EventId | null;
}

/** All changes of one transaction share a position; of a key that stands at it already, what was told first counts. */
export async function appendCurrentStateDeltas(
  tx: Connection,
  { streamId, roomId }: { readonly streamId: bigint; readonly roomId: RoomId },
  changes: readonly StateKeyChange[],
): Promise<void> {
  await appendDeltasAtPositions(
    tx,
    roomId,
    changes.map((change) => ({ ...change, streamId })),
  );
}

/** The same for changes that have positions of their own. */
export async function appendDeltasAtPositions(
  tx: Connection,
  roomId: RoomId,
  changes: readonly (StateKeyChange & { readonly streamId: bigint })[],
): Promise<void> {
  const keys = changes.map(({ key }) => splitStateKey(key));
  await execute(
    tx,
    `INSERT INTO current_state_delta_stream (room_id, stream_id, type, state_key, event_id, previous_event_id)
     SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[])
     ON CONFLICT (stream_id, room_id, type, state_key) DO NOTHING`,
    [
      roomId,
      changes.map(({ streamId }) => streamId),
      keys.map(([type]) => type),
      keys.map(([, stateKey]) => stateKey),
      changes.map(({ eventId }) => eventId),
      changes.map(({ previousEventId }) => previousEventId),
    ],
  );
}

/** What a room's current state became within the range: of each key that changed the last event, null if it is gone. */
export async function currentStateDelta(
  c: Connection,
  roomId: RoomId,
  range: StreamRange,
): Promise<Map<StateKey, EventId | null>> {
  const rows = await queryRows<{ type: string; stateKey: string; eventId: EventId | null }>(
    c,
    `SELECT type, state_key AS "stateKey", event_id AS "eventId" FROM current_state_delta_stream
     WHERE room_id = $1 AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id`,
    [roomId, range.from, range.to],
  );
  return new Map(rows.map((row) => [stateKeyOf(row.type, row.stateKey), row.eventId]));
}

/**
 * The events that held what no event holds at the range's end, though one did at its start or in between: a client that
 * knows them must be told that they are gone.
 */
export async function goneFromCurrentState(
  c: Connection,
  roomId: RoomId,
  range: StreamRange,
): Promise<readonly EventId[]> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `SELECT previous_event_id AS id FROM (
       SELECT DISTINCT ON (type, state_key) event_id, previous_event_id FROM current_state_delta_stream
       WHERE room_id = $1 AND stream_id > $2 AND stream_id <= $3 ORDER BY type, state_key, stream_id DESC) AS latest
     WHERE event_id IS NULL AND previous_event_id IS NOT NULL`,
    [roomId, range.from, range.to],
  );
  return rows.map((row) => row.id);
}

// ── Memberships of our own users ────────────────────────────────────────────────────────────────────────────────────

export interface LocalMembershipChange {
  readonly streamId: bigint;
  readonly userId: UserId;
  readonly roomId: RoomId;
  readonly membership: Membership;
  readonly eventId: EventId;
}

export async function appendLocalMembership(tx: Connection, change: LocalMembershipChange): Promise<void> {
  await execute(
    tx,
    `INSERT INTO local_membership_stream (stream_id, user_id, room_id, membership, event_id)
     VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (user_id, room_id, stream_id)
       DO UPDATE SET membership = EXCLUDED.membership, event_id = EXCLUDED.event_id`,
    [change.streamId, change.userId, change.roomId, change.membership, change.eventId],
  );
}

/** Whether the user was told of this event, be it long past by now. */
export async function isMembershipTold(
  c: Connection,
  { userId, roomId, eventId }: Pick<LocalMembershipChange, "userId" | "roomId" | "eventId">,
): Promise<boolean> {
  const row = await queryRow(
    c,
    `SELECT 1 AS told FROM local_membership_stream WHERE user_id = $1 AND room_id = $2 AND event_id = $3 LIMIT 1`,
    [userId, roomId, eventId],
  );
  return row !== undefined;
}

const LOCAL_MEMBERSHIP_COLUMNS = `stream_id AS "streamId", user_id AS "userId", room_id AS "roomId", membership,
  event_id AS "eventId"`;

/** A user's changes of membership within the range, oldest first. */
export async function localMembershipChanges(
  c: Connection,
  userId: UserId,
  range: StreamRange,
): Promise<readonly LocalMembershipChange[]> {
  return queryRows<LocalMembershipChange & { streamId: bigint }>(
    c,
    `SELECT ${LOCAL_MEMBERSHIP_COLUMNS} FROM local_membership_stream
     WHERE user_id = $1 AND stream_id > $2 AND stream_id <= $3 ORDER BY stream_id`,
    [userId, range.from, range.to],
  );
}

/** A user's standing in every room at a position: the last change up to it. */
export async function localMembershipsAt(
  c: Connection,
  userId: UserId,
  position: bigint,
): Promise<readonly LocalMembershipChange[]> {
  return queryRows<LocalMembershipChange & { streamId: bigint }>(
    c,
    `SELECT DISTINCT ON (room_id) ${LOCAL_MEMBERSHIP_COLUMNS} FROM local_membership_stream
     WHERE user_id = $1 AND stream_id <= $2 ORDER BY room_id, stream_id DESC`,
    [userId, position],
  );
}
