import { prevEventIds } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { hasAcceptedDescendant, supersededBy } from "../../storage/room-graph.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { eventsOf, unwrittenState } from "./events-at-hand.ts";
import { statesKey, statesOf, type RoomTurn } from "./room-turn.ts";
import type { StoredState } from "./state-before-event.ts";
import { computeCurrentState, type CurrentStateChange } from "./update-current-state.ts";

interface JudgedEvent {
  readonly event: StoredEvent;
  readonly after: StoredState;
}

/**
 * Moves the room on to where it stands with the event: forward extremities and current state, which are written at the
 * turn's end. Undefined where the current state stays as it is, as it does with messages and with refused events.
 */
export async function advanceRoom(turn: RoomTurn, judged: JudgedEvent): Promise<CurrentStateChange | undefined> {
  const { front, source } = turn;
  const { event } = judged;
  const extremities = await extremitiesWith(turn, event);
  if (extremities === undefined) return undefined;
  front.extremities = extremities;
  front.moved = true;
  await eventsOf(source, extremities);
  const snapshotIds = statesOf(source.atHand, extremities);
  // The room was given up partial while the event came: no state of its ends is known any more.
  if (snapshotIds.size === 0) return undefined;
  const key = statesKey(snapshotIds);
  if (key === front.resolvedOf) return undefined;
  const states = await statesAfter(turn, snapshotIds, judged);
  const change = await computeCurrentState(source, front.currentSnapshotId, states, unwrittenState(source));
  front.resolvedOf = key;
  if (change.snapshotId === front.currentSnapshotId) return undefined;
  front.currentSnapshotId = change.snapshotId;
  return change;
}

/**
 * The extremities with the new event, which may have arrived after one that builds on it (a filled gap). Undefined where
 * they stay as they are. `src/matrix/forward-extremities.ts` is the same for many arrivals at once.
 */
async function extremitiesWith(
  { front, source, builtUpon }: RoomTurn,
  event: StoredEvent,
): Promise<readonly EventId[] | undefined> {
  const { tx, roomId, atHand } = source;
  const isBehind = builtUpon.has(event.eventId) && (await hasAcceptedDescendant(tx, roomId, event.eventId));
  if ((event.rejected || event.softFailed) && !isBehind) return undefined;
  const prevIds = prevEventIds(event.pdu);
  const isBehindRefused = prevIds.some((id) => isRefused(atHand.known.get(id)));
  const superseded = isBehindRefused ? await supersededBy(tx, roomId, prevIds) : new Set(prevIds);
  const current = front.extremities;
  const rest = current.filter((id) => !superseded.has(id));
  if (!isBehind) return [...rest, event.eventId];
  return rest.length === current.length ? undefined : rest;
}

function isRefused(event: StoredEvent | undefined): boolean {
  return event !== undefined && (event.rejected || event.softFailed);
}

async function statesAfter(
  { source }: RoomTurn,
  snapshotIds: ReadonlySet<bigint>,
  { after }: JudgedEvent,
): Promise<readonly StoredState[]> {
  const states: StoredState[] = [];
  for (const snapshotId of snapshotIds) {
    if (snapshotId === after.snapshotId) states.unshift(after);
    else states.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  return states;
}
