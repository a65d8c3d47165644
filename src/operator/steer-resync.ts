import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import { partialRoom, type PartialRoom } from "../storage/partial-state.ts";
import { deleteResyncControl, storeResyncControl } from "../storage/resync-control.ts";
import type { OperatorContext } from "./context.ts";

/** Who asks, and why. */
export interface Request {
  readonly roomId: RoomId;
  readonly by: string;
  readonly why: string;
}

async function partialRoomOrRefusal(ctx: OperatorContext, roomId: RoomId): Promise<PartialRoom> {
  const room = await partialRoom(ctx.database.pool, roomId);
  if (room === undefined) {
    throw new MatrixError(409, "FASTJOIN.NOT_PARTIAL", `${roomId} has no partial state, so nothing is being resynced`);
  }
  return room;
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
  await storeResyncControl(ctx.database, { wish: "cancelled", roomId, by, why, at: ctx.now() });
  return told(ctx, roomId, () => ctx.resyncs.cancel(roomId));
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
  if (via === undefined) {
    await deleteResyncControl(ctx.database.pool, roomId);
  } else {
    await storeResyncControl(ctx.database, { wish: "prefer-server", serverName: via, roomId, by, why, at: ctx.now() });
  }
  return told(ctx, roomId, async () => {
    // The wish goes before the signal to act, or the resync would ask the old servers once more.
    if (via !== undefined) {
      await ctx.workflows.signalPreferServer(roomId, via);
    }
    if (!(await ctx.workflows.signalRetry(roomId)) && joinEventId !== null) {
      await ctx.resyncs.start(roomId, joinEventId);
    }
  });
}
