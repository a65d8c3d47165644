import { serverNameOf, type EventId, type UserId } from "../matrix/identifiers.ts";
import { emptyState, splitStateKey, stateDiff, type StateKey, type StateMap } from "../matrix/state.ts";
import { applyMembershipChanges, type MembershipChange } from "../storage/memberships.ts";
import { loadMemberships } from "../storage/member-events.ts";
import { setCurrentSnapshot } from "../storage/rooms.ts";
import { loadState } from "../storage/state-snapshots.ts";
import { appendCurrentStateDeltas, appendLocalMembership } from "../storage/streams.ts";
import type { RoomsContext } from "./context.ts";
import { resolveRoomState } from "./resolve-room-state.ts";
import { storeState, type StateSource, type StoredState } from "./state-before-event.ts";

/** A new current state of a room, stored but not yet announced. */
export interface CurrentStateChange {
  readonly snapshotId: bigint;
  readonly previous: StateMap;
  readonly current: StateMap;
  /** The changed keys with their new events. */
  readonly changes: ReadonlyMap<StateKey, EventId | null>;
}

/**
 * Makes the resolution over the states after the room's forward extremities its current state.
 *
 * @param states the states after all forward extremities
 */
export async function updateCurrentState(
  source: StateSource,
  previousSnapshotId: bigint | null,
  states: readonly StoredState[],
): Promise<CurrentStateChange> {
  const resolved = await resolveRoomState(
    source.tx,
    source.rules,
    states.map((one) => one.state),
  );
  const current = await storeState(source, resolved, states);
  if (current.snapshotId === previousSnapshotId) {
    return { snapshotId: current.snapshotId, previous: current.state, current: current.state, changes: new Map() };
  }
  const previous =
    previousSnapshotId === null ? emptyState : await loadState(source.database, previousSnapshotId, source.tx);
  const changes = stateDiff(previous, current.state);
  await setCurrentSnapshot(source.tx, source.roomId, current.snapshotId);
  await applyMembershipChanges(source.tx, source.roomId, await membershipChanges(source, memberChanges(changes)));
  return { snapshotId: current.snapshotId, previous, current: current.state, changes };
}

function memberChanges(changes: ReadonlyMap<StateKey, EventId | null>): ReadonlyMap<UserId, EventId | null> {
  const members = new Map<UserId, EventId | null>();
  for (const [key, eventId] of changes) {
    const [type, stateKey] = splitStateKey(key);
    if (type === "m.room.member") members.set(stateKey as UserId, eventId);
  }
  return members;
}

/**
 * Tells the streams what became of the current state. Part of a transaction's last steps, since it needs a position.
 *
 * @param told the changes that clients are told; memberships of our own users are always told
 */
export async function announceStateChanges(
  ctx: RoomsContext,
  source: StateSource,
  streamId: bigint,
  changes: { readonly told: ReadonlyMap<StateKey, EventId | null>; readonly all: ReadonlyMap<StateKey, EventId | null> },
): Promise<void> {
  await appendCurrentStateDeltas(source.tx, streamId, source.roomId, changes.told);
  const local = [...memberChanges(changes.all)].filter(([userId]) => serverNameOf(userId) === ctx.serverName);
  for (const { userId, member } of await membershipChanges(source, new Map(local))) {
    if (member === null) continue;
    await appendLocalMembership(source.tx, { streamId, userId, roomId: source.roomId, ...member });
  }
}

async function membershipChanges(
  source: StateSource,
  changes: ReadonlyMap<UserId, EventId | null>,
): Promise<readonly MembershipChange[]> {
  const memberships = await loadMemberships(
    source.tx,
    [...changes.values()].filter((eventId) => eventId !== null),
  );
  return [...changes].map(([userId, eventId]) => {
    const membership = eventId === null ? undefined : memberships.get(eventId);
    return { userId, member: eventId === null || membership === undefined ? null : { membership, eventId } };
  });
}
