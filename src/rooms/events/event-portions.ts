import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { Connection } from "../../storage/database.ts";
import { eventSizes } from "../../storage/event-sizes.ts";
import { loadRoom } from "../../storage/rooms.ts";

/** Of memberships, a third of a megabyte; reading and writing them takes some milliseconds. */
export const MOST_EVENTS = 500;

/** Of events of the size limit, 32. */
const MOST_BYTES = 2 * 1_048_576;

/** Sizes are asked for so many events at a time. */
const SIZES_AT_ONCE = 10_000;

/**
 * The ids in their order, in portions whose events may be held at once whatever their size: those of a large room are
 * read while the answer that has them is written.
 */
export async function* eventPortions(c: Connection, ids: readonly EventId[]): AsyncGenerator<readonly EventId[], void> {
  for (let start = 0; start < ids.length; start += SIZES_AT_ONCE) {
    const some = ids.slice(start, start + SIZES_AT_ONCE);
    yield* portionsBySize(some, await eventSizes(c, some));
  }
}

function* portionsBySize(
  ids: readonly EventId[],
  sizes: ReadonlyMap<EventId, number>,
): Generator<readonly EventId[], void> {
  let portion: EventId[] = [];
  let bytes = 0;
  for (const id of ids) {
    const size = sizes.get(id) ?? 0;
    if (portion.length === MOST_EVENTS || (portion.length > 0 && bytes + size > MOST_BYTES)) {
      yield portion;
      portion = [];
      bytes = 0;
    }
    portion.push(id);
    bytes += size;
  }
  if (portion.length > 0) yield portion;
}

/**
 * To be asked when all of a portion has been read: a room that is purged meanwhile must not look like a small one, nor
 * its events as they were before they were redacted.
 *
 * @throws MatrixError 404 M_NOT_FOUND
 */
export async function requireRoomHeld(c: Connection, roomId: RoomId): Promise<void> {
  const room = await loadRoom(c, roomId);
  if (typeof room?.currentSnapshotId === "bigint") return;
  throw new MatrixError(404, "M_NOT_FOUND", `The room ${roomId} was left while it was read`);
}
