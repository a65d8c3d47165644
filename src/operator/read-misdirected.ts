import type { RoomId } from "../matrix/identifiers.ts";
import { misdirectedServers, type MisdirectedServer } from "../storage/misdirected-events.ts";
import type { OperatorContext } from "./context.ts";
import { requireKnownRoom } from "./known-room.ts";

/** Named for each server; all of them are counted. */
const EVENTS_NAMED = 100;

/** Servers that were sent events of ours on partial knowledge of a room in which they had no user. */
export interface MisdirectedReport {
  readonly roomId: RoomId;
  readonly servers: readonly MisdirectedServer[];
}

/** Known when a resync has ended, and as long as we hold the room. @throws MatrixError 404 */
export async function showMisdirected(ctx: OperatorContext, roomId: RoomId): Promise<MisdirectedReport> {
  await requireKnownRoom(ctx, roomId);
  return { roomId, servers: await misdirectedServers(ctx.database.pool, roomId, EVENTS_NAMED) };
}
