import type { EventId } from "../matrix/identifiers.ts";
import { serverNameOf, type UserId } from "../matrix/identifiers.ts";
import { rulesOf } from "../matrix/room-versions.ts";
import { splitStateKey, stateGetByKey, stateSize, type StateKey } from "../matrix/state.ts";
import { transaction, type Connection } from "../storage/database.ts";
import { acceptedLeaves } from "../storage/event-children.ts";
import { loadEvent, loadEvents } from "../storage/events.ts";
import { countPartialEvents, deletePartialRoom, lockPartialRoom } from "../storage/partial-state.ts";
import { deleteResyncControl } from "../storage/resync-control.ts";
import { clearResyncStateIds } from "../storage/resync-state-ids.ts";
import { lockRoom, setForwardExtremities } from "../storage/rooms.ts";
import { countUnstoredEntries } from "../storage/state-entries.ts";
import { loadState } from "../storage/state-snapshots.ts";
import { appendUnPartialStatedRoom, takeStreamPositions } from "../storage/streams.ts";
import type { RoomsContext } from "./context.ts";
import type { ResyncTarget } from "./resync-next-step.ts";
import type { StateSource, StoredState } from "./state-before-event.ts";
import { applyCurrentState, computeCurrentState, type CurrentStateChange } from "./update-current-state.ts";

export type ResyncFinished =
  | { readonly kind: "completed"; readonly stateEvents: number }
  /** An event arrived on partial state meanwhile: it is repaired first. */
  | { readonly kind: "more" }
  | { readonly kind: "superseded" };

/** The full state does not hold together; the room stays partial rather than be declared whole. */
export class FullStateUnsound extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "FullStateUnsound";
  }
}

/**
 * Declares the room fully joined. Under the room's lock: forward extremities and current state are computed anew from
 * the repaired events, every event of the full state is stored, the room's partial rows go, and the streams tell it.
 *
 * @throws FullStateUnsound
 */
export async function finishResync(ctx: RoomsContext, target: ResyncTarget): Promise<ResyncFinished> {
  return await transaction(ctx.database, (tx) => finishWithin(ctx, tx, target));
}

async function finishWithin(ctx: RoomsContext, tx: Connection, target: ResyncTarget): Promise<ResyncFinished> {
  const { roomId } = target;
  const room = await lockRoom(tx, roomId);
  const partial = await lockPartialRoom(tx, roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || partial?.joinEventId !== target.joinEventId) {
    return { kind: "superseded" };
  }
  if ((await countPartialEvents(tx, roomId)) > 0) return { kind: "more" };

  const source: StateSource = { database: ctx.database, tx, roomId, rules };
  const extremities = await extremitiesSince(tx, target);
  const change = await computeCurrentState(source, room.currentSnapshotId, await statesAfter(source, extremities));
  await assertStored(source, change);

  const streamId = await takeStreamPositions(tx, 1);
  await setForwardExtremities(tx, roomId, extremities);
  await applyCurrentState(ctx, source, change, { streamId, told: newsForClients(ctx, change) });
  await deletePartialRoom(tx, roomId);
  await clearResyncStateIds(tx, roomId);
  await deleteResyncControl(tx, roomId);
  await appendUnPartialStatedRoom(tx, streamId, roomId);
  return { kind: "completed", stateEvents: stateSize(change.current) };
}

/** A repair may have refused an extremity, or brought back an event that was none for being refused. */
async function extremitiesSince(tx: Connection, { roomId, joinEventId }: ResyncTarget): Promise<readonly EventId[]> {
  const join = await loadEvent(tx, joinEventId);
  if (join === undefined || join.streamId === null) throw new FullStateUnsound(`the join ${joinEventId} is not stored`);
  const leaves = await acceptedLeaves(tx, roomId, join.streamId);
  if (leaves.length === 0) throw new FullStateUnsound("the full state refuses every event since the join");
  return leaves;
}

async function statesAfter(source: StateSource, extremities: readonly EventId[]): Promise<readonly StoredState[]> {
  const events = await loadEvents(source.tx, extremities);
  const states: StoredState[] = [];
  for (const snapshotId of new Set([...events.values()].map((event) => event.stateAfter))) {
    if (snapshotId === null) throw new FullStateUnsound("an extremity has no state");
    states.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  return states;
}

async function assertStored(source: StateSource, change: CurrentStateChange): Promise<void> {
  if (stateSize(change.current) === 0) throw new FullStateUnsound("the full state is empty");
  const unstored = await countUnstoredEntries(source.tx, change.snapshotId);
  if (unstored > 0) throw new FullStateUnsound(`${unstored} events of the full state are not stored`);
}

/**
 * Clients are told what they may have seen otherwise. The thousands of memberships that were merely unknown until now
 * are no news: a lazy-loading client asks for those it needs, another one first sees the room now.
 */
function newsForClients(ctx: RoomsContext, change: CurrentStateChange): ReadonlyMap<StateKey, EventId | null> {
  const news = new Map<StateKey, EventId | null>();
  for (const [key, eventId] of change.changes) {
    const [type, stateKey] = splitStateKey(key);
    const wasUnknown = type === "m.room.member" && stateGetByKey(change.previous, key) === undefined;
    if (!wasUnknown || serverNameOf(stateKey as UserId) === ctx.serverName) news.set(key, eventId);
  }
  return news;
}
