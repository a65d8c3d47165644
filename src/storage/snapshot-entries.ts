import type { EventId } from "../matrix/identifiers.ts";
import { stateKeyOf, type StateKey } from "../matrix/state.ts";
import { queryRows, type Connection } from "./query.ts";

/** A snapshot of a chain, with how many entries of its own it has. */
export interface SnapshotLink {
  readonly snapshotId: bigint;
  readonly parentId: bigint | null;
  readonly entryCount: number;
}

/** A snapshot's own entries; null: its parent's is taken away. */
export type SnapshotEntries = ReadonlyMap<StateKey, EventId | null>;

/** Entries read at once: whoever else the process serves gets its turn between. */
const PAGE = 5_000;

/** The entries of each snapshot, by its id. */
export async function loadSnapshotEntries(
  c: Connection,
  links: readonly SnapshotLink[],
): Promise<ReadonlyMap<bigint, SnapshotEntries>> {
  const small = links.filter(({ entryCount }) => entryCount <= PAGE).map(({ snapshotId }) => snapshotId);
  const bySnapshot = new Map(small.map((id) => [id, new Map<StateKey, EventId | null>()]));
  const rows = await queryRows<EntryRow & { id: bigint }>(
    c,
    `SELECT snapshot_id AS id, type, state_key AS "stateKey", event_id AS "eventId"
     FROM state_snapshot_entries WHERE snapshot_id = ANY ($1::bigint[])`,
    [small],
  );
  for (const row of rows) bySnapshot.get(row.id)?.set(stateKeyOf(row.type, row.stateKey), row.eventId);
  for (const link of links) if (link.entryCount > PAGE) bySnapshot.set(link.snapshotId, await loadInPages(c, link));
  return bySnapshot;
}

interface EntryRow {
  readonly type: string;
  readonly stateKey: string;
  readonly eventId: EventId | null;
}

async function loadInPages(c: Connection, link: SnapshotLink): Promise<Map<StateKey, EventId | null>> {
  const entries = new Map<StateKey, EventId | null>();
  let last: EntryRow | undefined;
  do {
    const rows: readonly EntryRow[] = await queryRows<EntryRow & { stateKey: string }>(
      c,
      `SELECT type, state_key AS "stateKey", event_id AS "eventId" FROM state_snapshot_entries
       WHERE snapshot_id = $1 AND ($2::text IS NULL OR (type, state_key) > ($2, $3))
       ORDER BY type, state_key LIMIT $4`,
      [link.snapshotId, last?.type ?? null, last?.stateKey ?? null, PAGE],
    );
    for (const row of rows) entries.set(stateKeyOf(row.type, row.stateKey), row.eventId);
    last = rows.length < PAGE ? undefined : rows.at(-1);
  } while (last !== undefined);
  // A purge takes it away between two pages.
  if (entries.size !== link.entryCount) throw new Error(`state snapshot ${link.snapshotId} is not there as a whole`);
  return entries;
}
