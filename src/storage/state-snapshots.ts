import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import {
  emptyState,
  splitStateKey,
  stateApply,
  stateEntries,
  stateKeyOf,
  stateOfMap,
  type StateKey,
  type StateMap,
} from "../matrix/state.ts";
import { openTransaction, type Database, type OpenTransaction } from "./database.ts";
import type { Member, Membership } from "./memberships.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import { createStateCache, type StateCache } from "./state-cache.ts";
import { loadSnapshotEntries, type SnapshotEntries, type SnapshotLink } from "./snapshot-entries.ts";

/**
 * State snapshots, log-structured: a snapshot is its parent's entries with its own on top, and each link holds at
 * least twice the entries of the one above it. So a chain over n entries has at most log2(n) + 1 links, and one more
 * change costs about log2(n) rows on average, whatever the size of the room.
 */

const CHAIN = `WITH RECURSIVE chain AS (
    SELECT snapshot_id, parent_id, entry_count, 0 AS depth FROM state_snapshots WHERE snapshot_id = $1
  UNION ALL
    SELECT parent.snapshot_id, parent.parent_id, parent.entry_count, depth + 1
    FROM chain JOIN state_snapshots parent ON parent.snapshot_id = chain.parent_id
  )`;

/** From the snapshot itself to its root. */
async function loadChain(c: Connection, snapshotId: bigint): Promise<readonly SnapshotLink[]> {
  const chain = await queryRows<{ snapshotId: bigint; parentId: bigint | null; entryCount: number }>(
    c,
    `${CHAIN} SELECT snapshot_id AS "snapshotId", parent_id AS "parentId", entry_count AS "entryCount"
     FROM chain ORDER BY depth`,
    [snapshotId],
  );
  if (chain.length === 0) throw new Error(`state snapshot ${snapshotId} does not exist`);
  return chain;
}

// ── Reading all of it ───────────────────────────────────────────────────────────────────────────────────────────────

/** Two rooms of the largest, or many of others: 60 MiB. */
const CACHED_ENTRIES = 300_000;

// A committed snapshot never changes and its id is never given again, so that nothing here goes stale. One cache a
// database: two databases give the same ids to different states.
const caches = new WeakMap<Database, StateCache>();

function cacheOf(database: Database): StateCache {
  let cache = caches.get(database);
  if (!cache) {
    cache = createStateCache(CACHED_ENTRIES);
    caches.set(database, cache);
  }
  return cache;
}

// PostgreSQL may crash before a transaction is committed, and then gives the ids of its snapshots to others.
const uncommitted = new WeakMap<OpenTransaction, Map<bigint, StateMap | undefined>>();

/** Until the transaction is committed, the snapshot's state is its own. */
function noteStored(tx: Connection, snapshotId: bigint): void {
  const open = openTransaction(tx);
  if (open === undefined) return;
  const states = uncommitted.get(open) ?? new Map<bigint, StateMap | undefined>();
  uncommitted.set(open, states.set(snapshotId, undefined));
}

/** The states at hand, as a connection sees them. */
interface StatesAtHand {
  get(snapshotId: bigint): StateMap | undefined;
  set(snapshotId: bigint, state: StateMap): void;
}

function statesAtHand(database: Database, c: Connection): StatesAtHand {
  const cache = cacheOf(database);
  const open = openTransaction(c);
  const own = open && uncommitted.get(open);
  return {
    get: (snapshotId) => (own?.has(snapshotId) === true ? own.get(snapshotId) : cache.get(snapshotId)),
    set(snapshotId, state) {
      const keep = (): void => cache.set(snapshotId, state);
      if (open === undefined || own?.has(snapshotId) !== true) {
        keep();
        return;
      }
      own.set(snapshotId, state);
      open.onCommit.push(keep);
    },
  };
}

/** The state of a snapshot, if it is at hand. `c` as for {@link loadState}. */
export function stateAtHand(
  database: Database,
  snapshotId: bigint,
  c: Connection = database.pool,
): StateMap | undefined {
  return statesAtHand(database, c).get(snapshotId);
}

/** Lets go of a committed state and of those that are like it: they will not be asked for here again soon. */
export function forgetState(database: Database, snapshotId: bigint): void {
  cacheOf(database).forget(snapshotId);
}

/**
 * The whole state of a snapshot. Snapshots with a common ancestor share its map.
 *
 * @param c the connection to read with: that of the transaction that stored the snapshot, before its commit
 */
export async function loadState(
  database: Database,
  snapshotId: bigint,
  c: Connection = database.pool,
): Promise<StateMap> {
  return stateAtHand(database, snapshotId, c) ?? (await loadByChain(database, await loadChain(c, snapshotId), c));
}

/** More than so many entries take longer to be read than a few look-ups in them. */
const FEW_ENTRIES = 2_000;

/** The same where it is at hand or little of it has to be read; undefined otherwise. */
export async function loadStateIfSmall(
  database: Database,
  snapshotId: bigint,
  c: Connection,
): Promise<StateMap | undefined> {
  const known = stateAtHand(database, snapshotId, c);
  if (known !== undefined) return known;
  const chain = await loadChain(c, snapshotId);
  const read = chain.filter((link) => stateAtHand(database, link.snapshotId, c) === undefined);
  const entries = read.reduce((sum, { entryCount }) => sum + entryCount, 0);
  return entries > FEW_ENTRIES ? undefined : await loadByChain(database, chain, c);
}

async function loadByChain(database: Database, chain: readonly SnapshotLink[], c: Connection): Promise<StateMap> {
  const atHand = statesAtHand(database, c);
  const known = chain.findIndex((link) => atHand.get(link.snapshotId) !== undefined);
  const missing = known < 0 ? chain : chain.slice(0, known);
  const ancestor = known < 0 ? undefined : chain[known];
  let state = ancestor && atHand.get(ancestor.snapshotId);
  const entries = await loadSnapshotEntries(c, missing);
  for (const link of missing.toReversed()) {
    const parent: StateMap | undefined = state;
    state = withEntries(parent, entries.get(link.snapshotId) ?? new Map());
    atHand.set(link.snapshotId, state);
  }
  return state ?? emptyState;
}

/** Where a snapshot was just stored. */
interface Storing {
  readonly database: Database;
  readonly tx: Connection;
}

/** Spares the first reading of a snapshot that was just stored, and gives its state. */
export function rememberState(
  { database, tx }: Storing,
  snapshotId: bigint,
  parent: StateMap,
  changes: ReadonlyMap<StateKey, EventId | null>,
): StateMap {
  const state = stateApply(parent, changes);
  statesAtHand(database, tx).set(snapshotId, state);
  return state;
}

/** The same for a state that stands for itself. */
export function rememberWholeState({ database, tx }: Storing, snapshotId: bigint, state: StateMap): void {
  statesAtHand(database, tx).set(snapshotId, state);
}

type Entry = readonly [StateKey, EventId | null];

function withEntries(parent: StateMap | undefined, entries: SnapshotEntries): StateMap {
  if (parent) return stateApply(parent, entries);
  const whole = new Map<StateKey, EventId>();
  for (const [key, eventId] of entries) if (eventId !== null) whole.set(key, eventId);
  return stateOfMap(whole);
}

// ── Reading single keys ─────────────────────────────────────────────────────────────────────────────────────────────

/** One key of a snapshot, by a few index look-ups. */
export async function lookUpInSnapshot(
  c: Connection,
  snapshotId: bigint,
  type: string,
  stateKey: string,
): Promise<EventId | undefined> {
  const found = await lookUpManyInSnapshot(c, snapshotId, [[type, stateKey]]);
  return found.get(stateKeyOf(type, stateKey));
}

/** Those of the keys that the snapshot has. */
export async function lookUpManyInSnapshot(
  c: Connection,
  snapshotId: bigint,
  keys: readonly (readonly [type: string, stateKey: string])[],
): Promise<Map<StateKey, EventId>> {
  const rows = await queryRows<{ type: string; stateKey: string; eventId: EventId | null }>(
    c,
    `${CHAIN} SELECT wanted.type, wanted.state_key AS "stateKey", found.event_id AS "eventId"
     FROM unnest($2::text[], $3::text[]) AS wanted (type, state_key)
     CROSS JOIN LATERAL (
       SELECT entry.event_id FROM chain
       JOIN state_snapshot_entries entry ON entry.snapshot_id = chain.snapshot_id
         AND entry.type = wanted.type AND entry.state_key = wanted.state_key
       ORDER BY chain.depth LIMIT 1) AS found`,
    [snapshotId, keys.map(([type]) => type), keys.map(([, stateKey]) => stateKey)],
  );
  return new Map(
    rows.flatMap(({ type, stateKey, eventId }) => (eventId === null ? [] : [[stateKeyOf(type, stateKey), eventId]])),
  );
}

// ── Reading ids alone ───────────────────────────────────────────────────────────────────────────────────────────────

/** The events of a whole state. What is not at hand is not kept either: ids alone take a third of the state's memory. */
export async function snapshotEventIds(database: Database, snapshotId: bigint): Promise<readonly EventId[]> {
  const atHand = stateAtHand(database, snapshotId);
  if (atHand !== undefined) return Array.from(stateEntries(atHand), ([, eventId]) => eventId);
  const rows = await queryRows<{ id: EventId | null }>(
    database.pool,
    `${CHAIN} SELECT DISTINCT ON (entry.type, entry.state_key) entry.event_id AS id
     FROM chain JOIN state_snapshot_entries entry USING (snapshot_id)
     ORDER BY entry.type, entry.state_key, chain.depth`,
    [snapshotId],
  );
  return rows.flatMap(({ id }) => id ?? []);
}

const MEMBERS = `members AS (
  SELECT DISTINCT ON (entry.state_key) entry.state_key, entry.event_id
  FROM chain JOIN state_snapshot_entries entry USING (snapshot_id)
  WHERE entry.type = 'm.room.member' ORDER BY entry.state_key, chain.depth)`;

interface MembershipsWanted {
  readonly membership?: Membership | undefined;
  readonly notMembership?: Membership | undefined;
}

/** The member events of a snapshot that we have, of these memberships: left and banned ones included if any will do. */
export async function snapshotMemberIds(
  c: Connection,
  snapshotId: bigint,
  { membership, notMembership }: MembershipsWanted,
): Promise<readonly EventId[]> {
  const rows = await queryRows<{ id: EventId }>(
    c,
    `${CHAIN}, ${MEMBERS}
     SELECT events.event_id AS id FROM members JOIN events ON events.event_id = members.event_id
     WHERE events.membership IS NOT NULL AND ($2::text IS NULL OR events.membership = $2)
       AND ($3::text IS NULL OR events.membership <> $3) ORDER BY members.state_key`,
    [snapshotId, membership ?? null, notMembership ?? null],
  );
  return rows.map(({ id }) => id);
}

/** All members of a snapshot whose events we have, left and banned ones included. */
export async function snapshotMembers(c: Connection, snapshotId: bigint): Promise<readonly Member[]> {
  const rows = await queryRows<Member & { userId: UserId }>(
    c,
    `${CHAIN}, ${MEMBERS}
     SELECT members.state_key AS "userId", events.membership, events.event_id AS "eventId"
     FROM members JOIN events ON events.event_id = members.event_id WHERE events.membership IS NOT NULL`,
    [snapshotId],
  );
  return rows;
}

// ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

interface SnapshotToStore {
  readonly parentId: bigint | null;
  /** null: the parent's entry is taken away. */
  readonly changes: ReadonlyMap<StateKey, EventId | null>;
}

/** Stores a snapshot and gives its id: the parent's, if nothing changes. */
export async function storeSnapshot(tx: Connection, roomId: RoomId, snapshot: SnapshotToStore): Promise<bigint> {
  const { parentId, changes } = snapshot;
  if (parentId !== null && changes.size === 0) return parentId;
  const chain = parentId === null ? [] : await loadChain(tx, parentId);
  const merged = linksToMerge(chain, changes.size);
  const parent = chain[merged.length]?.snapshotId ?? null;
  const id = await insertSnapshot(tx, { roomId, parentId: parent, changes });
  if (merged.length > 0) await mergeEntries(tx, id, merged);
  if (parent === null) await dropRemovals(tx, id);
  if (merged.length > 0 || parent === null) await countEntries(tx, id);
  return id;
}

/** The links that are too small to stand below so many changes: they are written again as part of the new snapshot. */
function linksToMerge(chain: readonly SnapshotLink[], changeCount: number): readonly bigint[] {
  const merged: bigint[] = [];
  let count = changeCount;
  for (const link of chain) {
    if (link.entryCount >= 2 * count) break;
    merged.push(link.snapshotId);
    count += link.entryCount;
  }
  return merged;
}

interface SnapshotToInsert extends SnapshotToStore {
  readonly roomId: RoomId;
}

const ENTRY_CHUNK = 10_000;

/** Almost always in one statement. */
async function insertSnapshot(tx: Connection, { roomId, parentId, changes }: SnapshotToInsert): Promise<bigint> {
  const all = [...changes];
  const row = await queryRow<{ id: bigint }>(
    tx,
    `WITH stored AS (
       INSERT INTO state_snapshots (room_id, parent_id, entry_count) VALUES ($1, $2, $3) RETURNING snapshot_id AS id),
     entries AS (
       INSERT INTO state_snapshot_entries (snapshot_id, type, state_key, event_id)
       SELECT stored.id, given.* FROM stored, unnest($4::text[], $5::text[], $6::text[]) AS given)
     SELECT id FROM stored`,
    [roomId, parentId, all.length, ...columnsOf(all.slice(0, ENTRY_CHUNK))],
  );
  if (!row) throw new Error("PostgreSQL gave no snapshot id");
  noteStored(tx, row.id);
  for (let start = ENTRY_CHUNK; start < all.length; start += ENTRY_CHUNK) {
    await execute(
      tx,
      `INSERT INTO state_snapshot_entries (snapshot_id, type, state_key, event_id)
       SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])`,
      [row.id, ...columnsOf(all.slice(start, start + ENTRY_CHUNK))],
    );
  }
  return row.id;
}

function columnsOf(entries: readonly Entry[]): readonly unknown[] {
  const keys = entries.map(([key]) => splitStateKey(key));
  return [keys.map(([type]) => type), keys.map(([, stateKey]) => stateKey), entries.map(([, eventId]) => eventId)];
}

/** Copies the links' entries, those of the first link over those of the next, and none over the snapshot's own. */
async function mergeEntries(tx: Connection, snapshotId: bigint, links: readonly bigint[]): Promise<void> {
  await execute(
    tx,
    `INSERT INTO state_snapshot_entries (snapshot_id, type, state_key, event_id)
     SELECT DISTINCT ON (entry.type, entry.state_key) $1::bigint, entry.type, entry.state_key, entry.event_id
     FROM unnest($2::bigint[]) WITH ORDINALITY AS link (snapshot_id, depth)
     JOIN state_snapshot_entries entry ON entry.snapshot_id = link.snapshot_id
     ORDER BY entry.type, entry.state_key, link.depth
     ON CONFLICT DO NOTHING`,
    [snapshotId, links],
  );
}

/** A root has nothing below it that could be taken away. */
async function dropRemovals(tx: Connection, snapshotId: bigint): Promise<void> {
  await execute(tx, `DELETE FROM state_snapshot_entries WHERE snapshot_id = $1 AND event_id IS NULL`, [snapshotId]);
}

async function countEntries(tx: Connection, snapshotId: bigint): Promise<void> {
  await execute(
    tx,
    `UPDATE state_snapshots
     SET entry_count = (SELECT count(*) FROM state_snapshot_entries WHERE snapshot_id = $1) WHERE snapshot_id = $1`,
    [snapshotId],
  );
}
