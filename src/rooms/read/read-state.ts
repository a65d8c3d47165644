import type { TextBatches } from "../../federation-api/long-json.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import { lookUpInSnapshot, snapshotEventIds } from "../../storage/state-snapshots.ts";
import type { ClientEvent } from "./client-event.ts";
import { clientEventBatches, jsonTexts } from "./client-event-batches.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "../context.ts";
import { waitForFullState } from "./full-state-wait.ts";
import type { ReadContext } from "./full-state-wait.ts";
import { roomAccess } from "./room-access.ts";

export interface RoomReader {
  readonly roomId: RoomId;
  readonly userId: UserId;
  /** Ends the wait for the full state. */
  readonly signal?: AbortSignal;
}

/**
 * All of the state that the user may see: waits for the full state. Which events that are is settled then; they are read
 * as somebody asks for them.
 *
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function readState(ctx: ReadContext, reader: RoomReader): Promise<TextBatches> {
  await roomAccess(ctx, reader.roomId, reader.userId);
  await waitForFullState(ctx, reader.roomId, reader.signal);
  // Asked again: the resync has moved the room to another snapshot, or put the user out.
  const access = await roomAccess(ctx, reader.roomId, reader.userId);
  const ids = await snapshotEventIds(ctx.database, access.snapshotId);
  return jsonTexts(clientEventBatches(ctx, { roomId: reader.roomId, ids, withRoomId: true }));
}

/**
 * One state event. What is no membership of another server's user is believed at once while the state is partial,
 * the rest waits for the full state.
 *
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN, 404 M_NOT_FOUND
 */
export async function readStateEvent(
  ctx: ReadContext,
  wanted: RoomReader & { readonly type: string; readonly stateKey: string },
): Promise<ClientEvent> {
  await roomAccess(ctx, wanted.roomId, wanted.userId);
  if (isRemoteMembership(ctx, wanted)) {
    await waitForFullState(ctx, wanted.roomId, wanted.signal);
  }
  const access = await roomAccess(ctx, wanted.roomId, wanted.userId);
  const { pool } = ctx.database;
  const id = await lookUpInSnapshot(pool, access.snapshotId, wanted.type, wanted.stateKey);
  const event = id === undefined ? undefined : await loadEvent(pool, id);
  const [found] = event === undefined ? [] : await toClientEvents(ctx, [event], { withRoomId: true });
  if (found === undefined) {
    throw new MatrixError(404, "M_NOT_FOUND", "The room has no such state event");
  }
  return found;
}

function isRemoteMembership(
  ctx: RoomsContext,
  { type, stateKey }: { readonly type: string; readonly stateKey: string },
): boolean {
  return type === "m.room.member" && !(isUserId(stateKey) && serverNameOf(stateKey) === ctx.serverName);
}
