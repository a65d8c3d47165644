import type { RoomId } from "../matrix/identifiers.ts";
import { endJoin, type JoinUnderWay } from "../storage/joins-under-way.ts";
import { loadRoom, lockRoom } from "../storage/rooms.ts";
import { deleteOutliersOfUnenteredRoom } from "../storage/unentered-rooms.ts";
import type { RoomsContext } from "./context.ts";
import { atStep, commit } from "./failpoints.ts";

/**
 * The join is under way no more. Where it failed, what large answers have left of a room that we know by nothing else
 * goes with its note.
 */
export async function endJoinUnderWay(
  ctx: RoomsContext,
  join: JoinUnderWay,
  { failed }: { readonly failed: boolean },
): Promise<void> {
  const { pool } = ctx.database;
  // Whoever has the lock of a room that we know may keep it for long.
  const room = failed ? await loadRoom(pool, join.roomId) : undefined;
  if (room?.currentSnapshotId !== null) return await atStep(ctx, "end the note of a join", () => endJoin(pool, join));
  await commit(ctx, "end the note of a join", async (tx) => {
    // Before the note: in the order of those who purge the room.
    await lockRoom(tx, join.roomId);
    await endJoin(tx, join);
    await deleteOutliersOfUnenteredRoom(tx, join.roomId);
  });
}

/** The same for what a crash in the middle of a join has left, whose note is gone already. */
export async function forgetUnenteredRoom(ctx: RoomsContext, roomId: RoomId): Promise<void> {
  await commit(ctx, "end the note of a join", async (tx) => {
    await lockRoom(tx, roomId);
    await deleteOutliersOfUnenteredRoom(tx, roomId);
  });
}
