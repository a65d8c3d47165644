import { LRUCache } from "lru-cache";
import type { RoomId } from "../../matrix/identifiers.ts";
import { openTransaction, type Database } from "../../storage/database.ts";
import type { StateSource } from "./state-before-event.ts";

/** A room's current state, and the states after its forward extremities by which it goes. */
interface Resolved {
  readonly currentSnapshotId: bigint;
  /** Their key, by `statesKey`. */
  readonly key: string;
}

const MAX_ROOMS = 1_000;

const caches = new WeakMap<Database, LRUCache<RoomId, Resolved>>();

function cacheOf(database: Database): LRUCache<RoomId, Resolved> {
  const cache = caches.get(database) ?? new LRUCache<RoomId, Resolved>({ max: MAX_ROOMS });
  caches.set(database, cache);
  return cache;
}

/**
 * The states to which the current state of a partial room was found to lack nothing but unknown members: the comparison
 * of all members need not be made again for each message.
 */
export function resolvedPartially(database: Database, roomId: RoomId, currentSnapshotId: bigint): string | undefined {
  const resolved = cacheOf(database).get(roomId);
  return resolved?.currentSnapshotId === currentSnapshotId ? resolved.key : undefined;
}

/** Once the transaction is committed: of one that is not, the snapshots may never come to be. */
export function rememberResolvedPartially({ database, tx, roomId }: StateSource, resolved: Resolved): void {
  openTransaction(tx)?.onCommit.push(() => void cacheOf(database).set(roomId, resolved));
}
