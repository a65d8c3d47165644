import type { EventId } from "../../matrix/identifiers.ts";
import { followForwardExtremities } from "../../matrix/forward-extremities.ts";
import { loadEvent, loadEvents } from "../../storage/events.ts";
import { arrivalsFrom } from "../../storage/room-graph.ts";
import { forwardExtremities, type RoomRow } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { statesKey } from "./room-turn.ts";
import type { StateSource, StoredState } from "./state-before-event.ts";
import { computeCurrentState, lacksOnlyUnknownMembers, type CurrentStateChange } from "./update-current-state.ts";

/** The full state does not hold together; the room stays partial rather than be declared whole. */
export class FullStateUnsound extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = "FullStateUnsound";
  }
}

/** What a room's events since our join make of it, computed but not yet the room's. */
export interface RoomRecomputed {
  readonly extremities: readonly EventId[];
  readonly change: CurrentStateChange;
}

/**
 * Forward extremities and current state from the events themselves, as they are judged by now: a repair may have
 * refused an extremity, or brought back an event that was none for being refused.
 *
 * @throws FullStateUnsound
 */
export async function recomputeRoom(source: StateSource, room: RoomRow, joinEventId: EventId): Promise<RoomRecomputed> {
  const extremities = followForwardExtremities();
  const position = await positionOfJoin(source, joinEventId);
  for (const arrival of await arrivalsFrom(source.tx, source.roomId, position)) {
    // Given up with an earlier join of ours: it has no part in this one.
    if (arrival.stateAfter === null) continue;
    if (arrival.rejected || arrival.softFailed) extremities.refuse(arrival);
    else extremities.accept(arrival);
  }
  return await recomputeFrom(source, room, [...orTheJoin(extremities.current(), joinEventId)]);
}

/** The room as these extremities make it. */
export async function recomputeFrom(
  source: StateSource,
  room: RoomRow,
  extremities: readonly EventId[],
): Promise<RoomRecomputed> {
  const states = await statesAfter(source, extremities);
  return { extremities, change: await computeCurrentState(source, room.currentSnapshotId, states) };
}

/**
 * The one state behind all of a partial room's forward extremities, by `statesKey`, where the current state lacks nothing
 * of it but unknown members: whoever sends next would have to find that out, and read all of them first.
 */
export async function resolvedOfOneState(source: StateSource, room: RoomRow): Promise<string | undefined> {
  const { currentSnapshotId, resolvedOf } = room;
  const extremities = await loadEvents(source.tx, await forwardExtremities(source.tx, source.roomId));
  const [only, ...others] = new Set([...extremities.values()].map((event) => event.stateAfter));
  if (others.length > 0 || only === undefined || only === null || currentSnapshotId === null) return undefined;
  const key = statesKey(new Set([only]));
  if (key === resolvedOf) return undefined;
  return (await lacksOnlyUnknownMembers(source, currentSnapshotId, only)) ? key : undefined;
}

/** Where the full state refuses all there is since the join, we are not in the room: it ends as it was before the join. */
export function orTheJoin(extremities: ReadonlySet<EventId>, joinEventId: EventId): ReadonlySet<EventId> {
  return extremities.size === 0 ? new Set([joinEventId]) : extremities;
}

/** @throws FullStateUnsound */
export async function positionOfJoin({ tx }: Pick<StateSource, "tx">, joinEventId: EventId): Promise<bigint> {
  const join = await loadEvent(tx, joinEventId);
  if (join === undefined || join.streamId === null) throw new FullStateUnsound(`the join ${joinEventId} is not stored`);
  return join.streamId;
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
