import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import { partialRoom, type PartialRoom } from "../storage/partial-state.ts";
import { deleteResyncControl, loadResyncControl, storeResyncControl } from "../storage/resync-control.ts";
import type { OperatorContext } from "./context.ts";
import { atStep } from "../rooms/failpoints.ts";
import { dropEvent, type EventToDrop } from "../rooms/resync/drop-event.ts";
import { requireKnownRoom } from "./known-room.ts";

/** Who asks, and why. */
export interface Request {
  readonly roomId: RoomId;
  readonly by: string;
  readonly why: string;
}

async function partialRoomOrRefusal(ctx: OperatorContext, roomId: RoomId): Promise<PartialRoom> {
  const room = await partialRoom(ctx.database.pool, roomId);
  if (room === undefined) {
    await requireKnownRoom(ctx, roomId);
    throw notPartial(roomId);
  }
  return room;
}

function notPartial(roomId: RoomId): MatrixError {
  const message = `${roomId} has no partial state, so nothing is being resynced`;
  return new MatrixError(409, "FASTJOIN.NOT_PARTIAL", message);
}

/** What can be done at once was done; what waits on Temporal is done by the reconciler when it is back. */
export interface Outcome {
  /** Whether the workflow was told; otherwise the wish is stored and the reconciler sees to it. */
  readonly workflowTold: boolean;
}

async function told(ctx: OperatorContext, roomId: RoomId, work: () => Promise<void>): Promise<Outcome> {
  try {
    await work();
    return { workflowTold: true };
  } catch (error) {
    ctx.logger.warn({ err: error, roomId }, "the workflow could not be told of the operator's wish; it is stored");
    return { workflowTold: false };
  }
}

/** Stops the room's resync for good: the wish is stored first, so that no reconciler starts it again. */
export async function cancelResync(ctx: OperatorContext, { roomId, by, why }: Request): Promise<Outcome> {
  await partialRoomOrRefusal(ctx, roomId);
  const wish = { wish: "cancelled", roomId, by, why, at: ctx.now() } as const;
  const isStored = await atStep(ctx, "note an operator's wish", () => storeResyncControl(ctx.database, wish));
  if (!isStored) throw notPartial(roomId);
  return told(ctx, roomId, () => atStep(ctx, "cancel a resync", () => ctx.resyncs.cancel(roomId)));
}

/**
 * Sets the room's resync going: a cancelled one starts again, a waiting one stops waiting. With `via`, that server is
 * asked first.
 */
export async function retryResync(
  ctx: OperatorContext,
  { roomId, by, why, via }: Request & { readonly via: ServerName | undefined },
): Promise<Outcome> {
  const { joinEventId } = await partialRoomOrRefusal(ctx, roomId);
  const before = await loadResyncControl(ctx.database, roomId);
  const storeWish = async (): Promise<boolean> => {
    if (via === undefined) {
      await deleteResyncControl(ctx.database.pool, roomId);
      return true;
    }
    const wish = { wish: "prefer-server", serverName: via } as const;
    return await storeResyncControl(ctx.database, { ...wish, roomId, by, why, at: ctx.now() });
  };
  if (!(await atStep(ctx, "note an operator's wish", storeWish))) throw notPartial(roomId);
  return told(ctx, roomId, async () => {
    const goesOn = before?.wish !== "cancelled" && (await signalRetry(ctx, roomId, via));
    if (!goesOn && joinEventId !== null) {
      // A run that is being cancelled ends by noting that it was: it must be gone, and its note with it.
      await atStep(ctx, "start a resync anew", () => ctx.resyncs.start(roomId, joinEventId, { replace: true }));
      await storeWish();
    }
  });
}

/**
 * Has the resync reject an event before which nobody can give the state; it takes its turn at once where a resync runs.
 *
 * @throws MatrixError 409 FASTJOIN.NOT_PARTIAL, FASTJOIN.NOT_DROPPABLE
 */
export async function dropFromResync(ctx: OperatorContext, request: EventToDrop): Promise<Outcome> {
  await partialRoomOrRefusal(ctx, request.roomId);
  await dropEvent(ctx, request);
  return told(ctx, request.roomId, () => atStep(ctx, "wake a resync", () => ctx.resyncs.wake(request.roomId)));
}

async function signalRetry(ctx: OperatorContext, roomId: RoomId, via: ServerName | undefined): Promise<boolean> {
  // The wish goes before the signal to act, or the resync would ask the old servers once more.
  if (via !== undefined) {
    await ctx.workflows.signalPreferServer(roomId, via);
  }
  return atStep(ctx, "wake a resync", () => ctx.workflows.signalRetry(roomId));
}
