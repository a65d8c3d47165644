import type { EventId, RoomId, UserId } from "../matrix/identifiers.ts";
import { resyncEventChanges, type ResyncEventChange } from "../storage/resync-event-changes.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";

/** What a full state has made of one event. Times are milliseconds since the epoch. */
export interface ChangeReport {
  readonly eventId: EventId;
  readonly type: string;
  readonly stateKey?: string;
  readonly sender: UserId;
  readonly change: ResyncEventChange["change"];
  /** The auth rule that refuses the event now, or did until then. */
  readonly rule: string;
  readonly reason: string;
  readonly at: number;
}

export interface ChangesReport {
  readonly roomId: RoomId;
  /** Oldest first. */
  readonly changes: readonly ChangeReport[];
  /** Where the next page begins, if there is one. */
  readonly next?: string;
}

const PAGE = 100;

/**
 * The events of a room of which a resync has changed the acceptance, also long after it.
 *
 * @throws MatrixError 404 for a room that we are not in
 */
export async function showChanges(ctx: OperatorContext, roomId: RoomId, after: bigint): Promise<ChangesReport> {
  await requireKnownRoom(ctx, roomId);
  const { pool } = ctx.database;
  const rows = await resyncEventChanges(pool, roomId, { after, limit: PAGE });
  const changes = rows.map(({ streamId: _position, stateKey, at, ...change }) => ({
    ...change,
    ...(stateKey !== null && { stateKey }),
    at: at.getTime(),
  }));
  const last = rows.at(-1);
  return { roomId, changes, ...(last !== undefined && rows.length >= PAGE && { next: String(last.streamId) }) };
}
