import type { Event } from "../../matrix/event.ts";
import { isStateEvent } from "../../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { emptyState, stateKeyOf, type StateKey, type StateMap } from "../../matrix/state.ts";
import type { Connection, Database } from "../../storage/database.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadState, rememberState, storeSnapshot } from "../../storage/state-snapshots.ts";
import { differenceOfStates } from "./difference-of-states.ts";
import type { EventsAtHand } from "./events-at-hand.ts";
import { resolveStates } from "./resolve-states.ts";

/** A state that is stored: its snapshot's id and what it holds. */
export interface StoredState {
  readonly snapshotId: bigint;
  readonly state: StateMap;
}

/** The state after an event that is in no timeline of ours, as another server told it. */
export interface ForeignState {
  readonly eventId: EventId;
  readonly after: StateMap;
  /** Where it is stored already. */
  readonly snapshotId?: bigint;
}

export interface StateSource {
  readonly database: Database;
  /** The transaction that holds the room's lock. */
  readonly tx: Connection;
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** Our server's name, where some of the states to be resolved are partial, so that the answer is. */
  readonly partialFor?: ServerName;
  /** Events that were read under the room's lock, or placed there and not written yet. */
  readonly atHand?: EventsAtHand;
}

/**
 * The state before an event: the resolution of the states after its prev_events, stored as a snapshot.
 * Partial states and full ones spread by the same rule; which it is, the event's row tells.
 *
 * @param foreign what other servers said of prev_events that we don't hold
 */
export async function stateBeforeEvent(
  source: StateSource,
  prevEvents: readonly StoredEvent[],
  foreign: readonly ForeignState[] = [],
): Promise<StoredState> {
  const snapshotIds = new Set<bigint>();
  for (const prev of prevEvents) {
    if (prev.stateAfter === null) throw new Error(`prev_event ${prev.eventId} has no state`);
    snapshotIds.add(prev.stateAfter);
  }
  const stored: StoredState[] = [];
  for (const snapshotId of snapshotIds) {
    stored.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  const unstored: StateMap[] = [];
  for (const { snapshotId, after } of foreign) {
    if (snapshotId === undefined) unstored.push(after);
    else if (!snapshotIds.has(snapshotId)) stored.push({ snapshotId, state: after });
  }
  const only = stored[0];
  if (only !== undefined && stored.length === 1 && unstored.length === 0) return only;

  const states = [...stored.map((one) => one.state), ...unstored];
  // Before the create event there was nothing.
  if (states.length === 0) return await storeState(source, emptyState, []);
  const resolved = await resolveStates(source, states);
  return await storeState(source, resolved, stored);
}

/** The state after an event: a rejected or a message event leaves it as it was. */
export async function stateAfterEvent(source: StateSource, before: StoredState, event: Event): Promise<StoredState> {
  if (event.rejected || !isStateEvent(event.pdu)) return before;
  const changes = new Map([[stateKeyOf(event.pdu.type, event.pdu.state_key), event.eventId]]);
  const snapshotId = await storeSnapshot(source.tx, source.roomId, { parentId: before.snapshotId, changes });
  return { snapshotId, state: rememberState(source, snapshotId, before.state, changes) };
}

/** Stores a state on top of whichever given snapshot it differs least from: the fewest entries are written. */
export async function storeState(
  source: StateSource,
  state: StateMap,
  near: readonly StoredState[],
): Promise<StoredState> {
  let nearest: StateOverParent | undefined;
  for (const parent of near) {
    const changes = await differenceOfStates(parent.state, state);
    if (nearest === undefined || changes.size < nearest.changes.size) nearest = { parent, changes };
  }
  if (nearest?.changes.size === 0) return nearest.parent;
  const changes = nearest?.changes ?? (await differenceOfStates(emptyState, state));
  const parentId = nearest?.parent.snapshotId ?? null;
  return { snapshotId: await storeSnapshot(source.tx, source.roomId, { parentId, changes }), state };
}

interface StateOverParent {
  readonly parent: StoredState;
  readonly changes: ReadonlyMap<StateKey, EventId | null>;
}
