import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateGetByKey, type StateKey } from "../../matrix/state.ts";
import { acceptedLeaves } from "../../storage/event-children.ts";
import { loadEvent, loadEvents } from "../../storage/events.ts";
import type { RoomRow } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import type { StateSource, StoredState } from "./state-before-event.ts";
import { computeCurrentState, type CurrentStateChange } from "./update-current-state.ts";

/** The full state does not hold together; the room stays partial rather than be declared whole. */
export class FullStateUnsound extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "FullStateUnsound";
  }
}

/** What a room's events since our join make of it, computed but not yet the room's. */
interface RoomRecomputed {
  readonly extremities: readonly EventId[];
  readonly change: CurrentStateChange;
}

/**
 * Forward extremities and current state from the events themselves: a repair may have refused an extremity, or brought
 * back an event that was none for being refused.
 *
 * @throws FullStateUnsound
 */
export async function recomputeRoom(source: StateSource, room: RoomRow, joinEventId: EventId): Promise<RoomRecomputed> {
  const extremities = await extremitiesSince(source, joinEventId);
  const states = await statesAfter(source, extremities);
  return { extremities, change: await computeCurrentState(source, room.currentSnapshotId, states) };
}

/** Where the full state refuses all there is since the join, we are not in the room: it ends as it was before the join. */
async function extremitiesSince({ tx, roomId }: StateSource, joinEventId: EventId): Promise<readonly EventId[]> {
  const join = await loadEvent(tx, joinEventId);
  if (join === undefined || join.streamId === null) throw new FullStateUnsound(`the join ${joinEventId} is not stored`);
  const leaves = await acceptedLeaves(tx, roomId, join.streamId);
  return leaves.length === 0 ? [joinEventId] : leaves;
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

/**
 * Clients are told what they may have seen otherwise. The thousands of memberships that were merely unknown until now
 * are no news: a lazy-loading client asks for those it needs, another one first sees the room when it is whole.
 */
export function newsForClients(ctx: RoomsContext, change: CurrentStateChange): ReadonlyMap<StateKey, EventId | null> {
  const news = new Map<StateKey, EventId | null>();
  for (const [key, eventId] of change.changes) {
    const [type, stateKey] = splitStateKey(key);
    const wasUnknown = type === "m.room.member" && stateGetByKey(change.previous, key) === undefined;
    if (!wasUnknown || serverNameOf(stateKey as UserId) === ctx.serverName) news.set(key, eventId);
  }
  return news;
}
