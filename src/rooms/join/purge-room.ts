import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { localJoinedUsers } from "../../storage/memberships.ts";
import { lockPartialRoom, partialRoom } from "../../storage/partial-state.ts";
import { purgeRoom, purgeRoomDetails } from "../../storage/purge-room.ts";
import { forgetAllUnsharedDeviceLists } from "../../storage/remote-device-lists.ts";
import {
  countOwedOfRoom,
  deleteRoomPurge,
  isRoomOpenToUs,
  listRoomPurges,
  loadRoomPurge,
  markRoomPurged,
  storeRoomPurge,
  type RoomPurge,
} from "../../storage/room-purges.ts";
import { lockRoom } from "../../storage/rooms.ts";
import type { RoomsContext } from "../context.ts";
import { atStep, commit } from "../failpoints.ts";
import { deviceListsOwedAfterLeave } from "../resync/device-lists-after-resync.ts";
import { leaveRoom } from "./leave-room.ts";

export interface RoomToPurge {
  readonly roomId: RoomId;
  readonly by: string;
  /** The reason that the room is told. */
  readonly why: string;
}

export interface RoomPurged {
  readonly left: readonly UserId[];
  /** Users whose leave the room does not allow; they are out of it all the same. */
  readonly notLeft: readonly UserId[];
  /** Events that servers have still to be sent: they are kept until then. */
  readonly owed: number;
}

/** Users of ours may join while others leave; whoever does it again and again has to be stopped otherwise. */
const MOST_ROUNDS = 3;

/**
 * Makes all of our users leave a room and deletes what we hold of it, also in the middle of its resync. The wish is
 * stored first, so that a crash in between leaves nothing half done. Of what is in the outbox nothing is lost: it stays
 * with the room's row until it is delivered, or a week has passed ({@link finishPurges}).
 *
 * @throws MatrixError 409 where users of ours join as fast as others leave
 */
export async function purgeRoomOfUsers(ctx: RoomsContext, { roomId, by, why }: RoomToPurge): Promise<RoomPurged> {
  await atStep(ctx, "note a purge", () => storeRoomPurge(ctx.database.pool, { roomId, by, why, at: ctx.now() }));
  return await carryOut(ctx, roomId, why);
}

async function carryOut(ctx: RoomsContext, roomId: RoomId, why: string): Promise<RoomPurged> {
  const left = new Set<UserId>();
  const notLeft = new Set<UserId>();
  for (let round = 0; round < MOST_ROUNDS; round += 1) {
    const joined = await localJoinedUsers(ctx.database.pool, roomId, ctx.serverName);
    for (const userId of joined.filter((one) => !notLeft.has(one))) {
      ((await hasLeft(ctx, { userId, roomId, ...(why !== "" && { reason: why }) })) ? left : notLeft).add(userId);
    }
    await cancelResync(ctx, roomId);
    const owed = await deleteDetails(ctx, roomId, notLeft);
    if (owed !== undefined) return { left: [...left], notLeft: [...notLeft], owed };
  }
  throw new MatrixError(409, "FASTJOIN.STILL_JOINED", `Users keep joining ${roomId} while it is purged; try again`);
}

async function hasLeft(ctx: RoomsContext, leave: Parameters<typeof leaveRoom>[1]): Promise<boolean> {
  try {
    await leaveRoom(ctx, leave);
    return true;
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error;
    ctx.logger.warn({ err: error, ...leave }, "a user could not leave a room that is purged");
    return false;
  }
}

/** The resync would notice by itself that the room is gone; cancelled, it ends at once, in the midst of a fetch too. */
async function cancelResync(ctx: RoomsContext, roomId: RoomId): Promise<void> {
  if ((await partialRoom(ctx.database.pool, roomId)) === undefined) return;
  try {
    await atStep(ctx, "cancel a resync", () => ctx.resyncs.cancel(roomId));
  } catch (error) {
    ctx.logger.warn(
      { err: error, roomId },
      "the resync of a purged room could not be told; it will find the room gone",
    );
  }
}

/** @returns how many entries of the outbox are left; undefined if a user is in the room who may still leave it */
async function deleteDetails(
  ctx: RoomsContext,
  roomId: RoomId,
  notLeft: ReadonlySet<UserId>,
): Promise<number | undefined> {
  return await commit(ctx, "delete the details of a purged room", async (tx) => {
    await lockRoom(tx, roomId);
    const joined = await localJoinedUsers(tx, roomId, ctx.serverName);
    if (joined.some((userId) => !notLeft.has(userId))) return undefined;
    const partial = await lockPartialRoom(tx, roomId);
    if (partial !== undefined) await deviceListsOwedAfterLeave(ctx, tx, partial);
    await purgeRoomDetails(tx, roomId);
    await forgetAllUnsharedDeviceLists(tx, ctx.serverName);
    await markRoomPurged(tx, roomId, ctx.now());
    return await countOwedOfRoom(tx, roomId);
  });
}

/** A purge that a crash has interrupted is taken up again after this. */
const INTERRUPTED_AFTER_MS = 60_000;
/** Clients that have not asked meanwhile are told for so long that their user has left. */
const CLIENTS_TOLD_FOR_MS = 24 * 60 * 60_000;
/** Other servers, as long as they fail. */
const SERVERS_TOLD_FOR_MS = 7 * 24 * 60 * 60_000;

/** Ends what purges have left: those that were interrupted, and rows that were kept for others who are told by now. */
export async function finishPurges(ctx: RoomsContext): Promise<void> {
  for (const purge of await listRoomPurges(ctx.database.pool)) {
    try {
      await finishPurge(ctx, purge);
    } catch (error) {
      ctx.logger.error({ err: error, roomId: purge.roomId }, "a room could not be purged yet");
    }
  }
}

async function finishPurge(ctx: RoomsContext, purge: RoomPurge): Promise<void> {
  const { roomId, purgedAt } = purge;
  if (purgedAt === null) {
    if (ctx.now() - purge.at > INTERRUPTED_AFTER_MS) await carryOut(ctx, roomId, purge.why);
    return;
  }
  const age = ctx.now() - purgedAt;
  const owed = await countOwedOfRoom(ctx.database.pool, roomId);
  if (age < (owed > 0 ? SERVERS_TOLD_FOR_MS : CLIENTS_TOLD_FOR_MS)) return;
  await commit(ctx, "delete a purged room", async (tx) => {
    await lockRoom(tx, roomId);
    if ((await loadRoomPurge(tx, roomId)) === undefined) return;
    // An invitation since then makes the room one that we have to know of.
    if (await isRoomOpenToUs(tx, roomId)) await deleteRoomPurge(tx, roomId);
    else await purgeRoom(tx, roomId);
  });
  if (owed > 0) ctx.logger.info({ roomId, owed }, "servers that fail for long are not told of a purged room's end");
}
