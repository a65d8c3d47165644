import type { EventId } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import type { Connection } from "../../storage/database.ts";
import { lockPartialRoom } from "../../storage/partial-state.ts";
import type { ResyncEventChange } from "../../storage/resync-event-changes.ts";
import { loadRoom, lockRoom, setForwardExtremities, setResolvedOf, type RoomRow } from "../../storage/rooms.ts";
import { fetchedSnapshots } from "../../storage/resync-state-ids.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { appendUnPartialStatedEvents, takeStreamPositions } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { differenceOfStates } from "../events/difference-of-states.ts";
import { recomputeRoom, resolvedOfOneState } from "../events/recompute-room.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { applyCurrentState } from "../events/update-current-state.ts";
import { repairInTurn, type RepairedEvent } from "./repair-turn.ts";
import type { ResyncTarget } from "./resync-next-step.ts";
import { tellOfChanges } from "./tell-of-changes.ts";

export type EventsRepaired =
  | { readonly kind: "repaired"; readonly count: number; readonly rejectionsChanged: number }
  | { readonly kind: "superseded" };

/** One transaction holds this many repairs: few enough to heartbeat between two. */
const REPAIRS_PER_TRANSACTION = 25;

/**
 * Gives partial events their full state: computed, judged anew in both directions, stored, and the row in
 * `partial_state_events` deleted in the same transaction, which is the resync's checkpoint.
 *
 * @param onProgress told after each transaction
 */
export async function repairEvents(
  ctx: RoomsContext,
  target: ResyncTarget,
  eventIds: readonly EventId[],
  onProgress?: () => void,
): Promise<EventsRepaired> {
  let count = 0;
  let rejectionsChanged = 0;
  await compareAhead(ctx, target);
  for (let start = 0; start < eventIds.length; start += REPAIRS_PER_TRANSACTION) {
    const ids = eventIds.slice(start, start + REPAIRS_PER_TRANSACTION);
    const repaired = await commit(ctx, "repair events", (tx) => repairWithin(ctx, tx, target, ids));
    if (repaired === undefined) return { kind: "superseded" };
    count += repaired.length;
    rejectionsChanged += changesOf(repaired).length;
    onProgress?.();
  }
  return { kind: "repaired", count, rejectionsChanged };
}

/** The first repair compares the whole fetched state with the partial one, which takes no time under the room's lock then. */
async function compareAhead({ database }: RoomsContext, { roomId }: ResyncTarget): Promise<void> {
  const room = await loadRoom(database.pool, roomId);
  const [fetched] = await fetchedSnapshots(database.pool, roomId);
  const current = room?.currentSnapshotId ?? null;
  if (fetched === undefined || current === null) return;
  await differenceOfStates(await loadState(database, current), await loadState(database, fetched));
}

async function repairWithin(
  ctx: RoomsContext,
  tx: Connection,
  target: ResyncTarget,
  eventIds: readonly EventId[],
): Promise<readonly RepairedEvent[] | undefined> {
  const room = await lockRoom(tx, target.roomId);
  const partial = await lockPartialRoom(tx, target.roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || partial?.joinEventId !== target.joinEventId) return undefined;

  const source: StateSource = { database: ctx.database, tx, roomId: target.roomId, rules };
  const repaired = await repairInTurn(source, target.joinEventId, eventIds);
  if (repaired.length > 0) await tellOfRepairs(ctx, source, { room, joinEventId: target.joinEventId, repaired });
  return repaired;
}

interface Repairs {
  readonly room: RoomRow;
  readonly joinEventId: EventId;
  readonly repaired: readonly RepairedEvent[];
}

/** The room follows at once, not at its end: a refused event must be no prev_event of ours meanwhile. */
async function tellOfRepairs(
  ctx: RoomsContext,
  source: StateSource,
  { room, joinEventId, repaired }: Repairs,
): Promise<void> {
  const { tx, roomId } = source;
  const changes = changesOf(repaired);
  // The other states of the room may still be partial.
  const approximately: StateSource = { ...source, partialFor: ctx.serverName };
  const anew = changes.length > 0 ? await recomputeRoom(approximately, room, joinEventId) : undefined;
  const resolvedOf = anew === undefined ? await resolvedOfOneState(approximately, room) : undefined;
  const first = await takeStreamPositions(tx, repaired.length);
  const told = repaired.map(({ eventId, change }, index) => {
    return { streamId: first + BigInt(index), eventId, rejectionStatusChanged: change !== undefined };
  });
  await appendUnPartialStatedEvents(tx, told);
  if (anew !== undefined) {
    await setForwardExtremities(tx, roomId, anew.extremities);
    await applyCurrentState(ctx, source, anew.change, { streamId: first, told: anew.change.changes });
  }
  if (resolvedOf !== undefined) await setResolvedOf(tx, roomId, resolvedOf);
  await tellOfChanges(ctx, source, { streamId: first, changes });
}

function changesOf(repaired: readonly RepairedEvent[]): readonly ResyncEventChange[] {
  return repaired.flatMap(({ change }) => (change === undefined ? [] : [change]));
}
