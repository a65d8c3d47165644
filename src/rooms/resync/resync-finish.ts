import { rulesOf } from "../../matrix/room-versions.ts";
import { stateSize } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { countPartialEvents, deletePartialRoom, lockPartialRoom, partialRoom } from "../../storage/partial-state.ts";
import { deleteResyncControl } from "../../storage/resync-control.ts";
import { clearResyncStateIds } from "../../storage/resync-state-ids.ts";
import { markSoftFailed } from "../../storage/room-graph.ts";
import { lockRoom, roomRules, setForwardExtremities } from "../../storage/rooms.ts";
import { countUnstoredEntries } from "../../storage/state-entries.ts";
import { forgetState } from "../../storage/state-snapshots.ts";
import { appendUnPartialStatedRoom, takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { newsForClients } from "../events/news-for-clients.ts";
import { FullStateUnsound, orTheJoin, recomputeFrom } from "../events/recompute-room.ts";
import { stayAway } from "./stay-away.ts";
import { comparedUnderLock, writeMembersAhead, type MembersAhead } from "./members-ahead.ts";
import { reachMissedServers } from "./reach-missed-servers.ts";
import { deviceListsAfterResync } from "./device-lists-after-resync.ts";
import type { ResyncTarget } from "./resync-next-step.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { applyCurrentState, applyMemberships } from "../events/update-current-state.ts";
import { beginReplay, replayArrivals, type ReplayedArrivals } from "./replay-arrivals.ts";
import { tellOfChanges } from "./tell-of-changes.ts";

export type ResyncFinished =
  | { readonly kind: "completed"; readonly stateEvents: number }
  /** An event arrived on partial state meanwhile: it is repaired first. */
  | { readonly kind: "more" }
  | { readonly kind: "superseded" };

/**
 * Declares the room fully joined. The repaired events are replayed, which gives the soft failures and the forward
 * extremities that a full join would have had (`replay-arrivals.ts`). Then, under the room's lock: the current state is
 * computed anew from those extremities, every event of it is stored, the room's partial rows go, and the streams tell
 * it.
 *
 * @throws FullStateUnsound, and the reason of the signal, until the room is locked
 */
export async function finishResync(
  ctx: RoomsContext,
  target: ResyncTarget,
  signal?: AbortSignal,
): Promise<ResyncFinished> {
  const replay = await replayUnlocked(ctx, target);
  if (replay === "superseded" || replay === "more") return { kind: replay };
  const [extremity = target.joinEventId] = orTheJoin(replay.extremities.current(), target.joinEventId);
  const ahead = await writeMembersAhead(ctx, target, { extremity, signal });
  signal?.throwIfAborted();
  if (ahead.fullSnapshotId !== null) await assertStored(ctx.database.pool, ahead.fullSnapshotId);
  const finished = await commit(ctx, "finish a resync", (tx) => finishWithin(ctx, tx, { ...target, replay, ahead }));
  // Whoever repairs the next room has no use for this one's state.
  if (finished.kind === "completed" && ahead.fullSnapshotId !== null) forgetState(ctx.database, ahead.fullSnapshotId);
  return finished;
}

/** Most of the work, done while the room can be used; the little that arrives meanwhile is left to the lock. */
async function replayUnlocked(
  ctx: RoomsContext,
  { roomId, joinEventId }: ResyncTarget,
): Promise<ReplayedArrivals | "superseded" | "more"> {
  const { pool } = ctx.database;
  const rules = await roomRules(pool, roomId);
  const partial = await partialRoom(pool, roomId);
  if (rules === undefined || partial?.joinEventId !== joinEventId) return "superseded";
  if ((await countPartialEvents(pool, roomId)) > 0) return "more";
  const source: StateSource = { database: ctx.database, tx: pool, roomId, rules };
  const replay = await beginReplay(source, joinEventId);
  return (await replayArrivals(source, replay)) ? replay : "more";
}

interface Finish extends ResyncTarget {
  readonly replay: ReplayedArrivals;
  readonly ahead: MembersAhead;
}

async function finishWithin(ctx: RoomsContext, tx: Connection, target: Finish): Promise<ResyncFinished> {
  const { roomId, replay, ahead } = target;
  const room = await lockRoom(tx, roomId);
  const partial = await lockPartialRoom(tx, roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || partial?.joinEventId !== target.joinEventId) {
    return { kind: "superseded" };
  }
  if ((await countPartialEvents(tx, roomId)) > 0) return { kind: "more" };

  const source: StateSource = { database: ctx.database, tx, roomId, rules };
  if (!(await replayArrivals(source, replay))) return { kind: "more" };
  await markSoftFailed(
    tx,
    replay.softFailures.map(({ eventId }) => eventId),
  );
  const standing = [...orTheJoin(replay.extremities.current(), target.joinEventId)];
  const { extremities, change } = await recomputeFrom(source, room, standing);
  if (stateSize(change.current) === 0) throw new FullStateUnsound("the full state is empty");
  if (change.snapshotId !== ahead.fullSnapshotId) await assertStored(tx, change.snapshotId);

  const { difference, left } = await comparedUnderLock(ctx, source, change, ahead);
  const told = await newsForClients(source, difference);
  await setForwardExtremities(tx, roomId, extremities);
  const applied = await applyMemberships(ctx, source, { changes: left });
  await reachMissedServers(ctx, source, { ...target, snapshotId: change.snapshotId });
  const streamId = await takeStreamPositions(tx, 1);
  await applyCurrentState(ctx, source, change, { streamId, told, applied });
  const changes = replay.softFailures.map((failure) => ({ ...failure, change: "soft-failed" as const }));
  await tellOfChanges(ctx, source, { streamId, changes });
  await deviceListsAfterResync(ctx, tx, { partial, streamId });
  await deletePartialRoom(tx, roomId);
  await clearResyncStateIds(tx, roomId);
  await deleteResyncControl(tx, roomId);
  await appendUnPartialStatedRoom(tx, streamId, roomId);
  await stayAway(ctx, tx, roomId);
  return { kind: "completed", stateEvents: stateSize(change.current) };
}

/** Events stay where they are: what was asked of a snapshot before the lock need not be asked under it. */
async function assertStored(c: Connection, snapshotId: bigint): Promise<void> {
  const unstored = await countUnstoredEntries(c, snapshotId);
  if (unstored > 0) throw new FullStateUnsound(`${unstored} events of the full state are not stored`);
}
