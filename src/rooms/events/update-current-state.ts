import type { Event } from "../../matrix/event.ts";
import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import {
  emptyState,
  splitStateKey,
  stateApply,
  stateGet,
  stateGetByKey,
  type StateKey,
  type StateMap,
} from "../../matrix/state.ts";
import { applyMembershipChanges, type MembershipChange } from "../../storage/memberships.ts";
import { loadMemberships } from "../../storage/member-events.ts";
import { forgetUnsharedDeviceLists } from "../../storage/remote-device-lists.ts";
import { setCurrentSnapshot } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { appendDeltasAtPositions, appendLocalMembership } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { differenceOfStates } from "./difference-of-states.ts";
import { newsForClients, separateUnknown } from "./news-for-clients.ts";
import { resolveStates } from "./resolve-states.ts";
import { storeState, type StateSource, type StoredState } from "./state-before-event.ts";

/** A new current state of a room, stored as a snapshot but not yet the room's. */
export interface CurrentStateChange {
  readonly previousSnapshotId: bigint | null;
  readonly snapshotId: bigint;
  readonly previous: StateMap;
  readonly current: StateMap;
  /** The changed keys with their new events. */
  readonly changes: ReadonlyMap<StateKey, EventId | null>;
}

/**
 * Computes the room's current state: the resolution over the states after its forward extremities.
 *
 * @param states the states after all forward extremities
 * @param unstored events of those states that are not in the database yet
 */
export async function computeCurrentState(
  source: StateSource,
  previousSnapshotId: bigint | null,
  states: readonly StoredState[],
  unstored: readonly Event[] = [],
): Promise<CurrentStateChange> {
  const resolved = await resolveStates(
    source,
    states.map((one) => one.state),
    unstored,
  );
  const previous =
    previousSnapshotId === null ? emptyState : await loadState(source.database, previousSnapshotId, source.tx);
  const found = await differenceOfStates(previous, resolved);
  const changes = await changesToMake(source, { previous, changes: found }, unstored);
  if (previousSnapshotId !== null && changes.size === 0) {
    return { previousSnapshotId, snapshotId: previousSnapshotId, previous, current: previous, changes };
  }
  const kept = previousSnapshotId === null ? [] : [{ snapshotId: previousSnapshotId, state: previous }];
  const { snapshotId, state: current } =
    changes.size === found.size
      ? await storeState(source, resolved, states)
      : await storeState(source, stateApply(previous, changes), kept);
  return { previousSnapshotId, snapshotId, previous, current, changes };
}

/** Whether a partial room's current state is all of another but members that are merely unknown. */
export async function lacksOnlyUnknownMembers(
  source: StateSource,
  currentSnapshotId: bigint,
  snapshotId: bigint,
): Promise<boolean> {
  const previous = await loadState(source.database, currentSnapshotId, source.tx);
  const whole = await loadState(source.database, snapshotId, source.tx);
  const changes = await differenceOfStates(previous, whole);
  return (await changesToMake(source, { previous, changes }, [])).size === 0;
}

/**
 * While a room is partial, some of its states may be full already: those of repaired events, and of events that our
 * join does not build on. The thousands of members that they bring are left to the end of the resync: here they would
 * be written while somebody waits for the answer to a message.
 */
async function changesToMake(
  source: StateSource,
  change: Pick<CurrentStateChange, "previous" | "changes">,
  unstored: readonly Event[],
): Promise<CurrentStateChange["changes"]> {
  const { partialFor } = source;
  if (partialFor === undefined || change.changes.size === 0) return change.changes;
  const arriving = new Set(unstored.map(({ eventId }) => eventId));
  const own = [...change.changes].filter(([, eventId]) => eventId !== null && arriving.has(eventId));
  if (own.length === change.changes.size) return change.changes;
  const separated = await separateUnknown({ serverName: partialFor }, change);
  return new Map([...(await newsForClients(source, separated)), ...own]);
}

/**
 * The memberships that follow from the change, whose events are stored. Thousands of them are done before the
 * transaction takes its position, for which everyone else would wait.
 */
export async function applyMemberships(
  ctx: RoomsContext,
  source: StateSource,
  change: Pick<CurrentStateChange, "changes">,
): Promise<readonly MembershipChange[]> {
  const memberships = await membershipChanges(source, memberChanges(change.changes));
  await applyMembershipChanges(source.tx, source.roomId, memberships);
  await forgetDeviceListsOf(ctx, source, memberships);
  return memberships;
}

interface CurrentStateNews {
  readonly streamId: bigint;
  /** The changes that clients are told; memberships of our own users are always told. */
  readonly told: CurrentStateChange["changes"];
  /** Where {@link applyMemberships} was called before. */
  readonly applied?: readonly MembershipChange[];
}

/**
 * Makes it the room's current state, with the memberships that follow, and tells the streams. Among a transaction's
 * last steps: the events of the change are stored, and its position is taken.
 */
export async function applyCurrentState(
  ctx: RoomsContext,
  source: StateSource,
  change: CurrentStateChange,
  { streamId, told, applied }: CurrentStateNews,
): Promise<void> {
  if (change.snapshotId === change.previousSnapshotId) return;
  await setCurrentSnapshot(source.tx, source.roomId, change.snapshotId);
  const memberships = applied ?? (await applyMemberships(ctx, source, change));
  await tellStreams(ctx, source, [{ streamId, change, told, memberships }]);
}

/** A change of the current state with its position. */
export interface ChangeAtPosition {
  readonly streamId: bigint;
  readonly change: CurrentStateChange;
}

/**
 * The same for changes that follow upon each other in one turn, all of which are told. As many as can be are written in
 * the statements of one, and the members of those in one order: who writes members of the room at the same time waits
 * for us, or we for them, but never both.
 */
export async function applyCurrentStates(
  ctx: RoomsContext,
  source: StateSource,
  changes: readonly ChangeAtPosition[],
): Promise<void> {
  for (const run of withoutSameMembers(changes)) {
    const last = run.at(-1);
    if (last === undefined) continue;
    await setCurrentSnapshot(source.tx, source.roomId, last.change.snapshotId);
    const all = new Map(run.flatMap(({ change }) => [...change.changes]));
    const applied = new Map(
      (await applyMemberships(ctx, source, { changes: all })).map((one) => [one.userId, one] as const),
    );
    const told = run.map(({ streamId, change }) => {
      const memberships = [...memberChanges(change.changes).keys()].flatMap((userId) => applied.get(userId) ?? []);
      return { streamId, change, told: change.changes, memberships };
    });
    await tellStreams(ctx, source, told);
  }
}

/** Of a member who leaves and joins again, each change has effects of its own: the devices that we knew are forgotten. */
function withoutSameMembers(changes: readonly ChangeAtPosition[]): readonly (readonly ChangeAtPosition[])[] {
  const runs: ChangeAtPosition[][] = [];
  let run: ChangeAtPosition[] = [];
  let members = new Set<UserId>();
  for (const one of changes) {
    const ofChange = [...memberChanges(one.change.changes).keys()];
    if (ofChange.some((userId) => members.has(userId))) {
      runs.push(run);
      [run, members] = [[], new Set()];
    }
    run.push(one);
    for (const userId of ofChange) members.add(userId);
  }
  return [...runs, run];
}

interface ToldChange extends ChangeAtPosition {
  readonly told: CurrentStateChange["changes"];
  readonly memberships: readonly MembershipChange[];
}

async function tellStreams(ctx: RoomsContext, source: StateSource, changes: readonly ToldChange[]): Promise<void> {
  const { tx, roomId } = source;
  const deltas = changes.flatMap(({ streamId, change, told }) =>
    [...told].map(([key, eventId]) => {
      return { streamId, key, eventId, previousEventId: stateGetByKey(change.previous, key) ?? null };
    }),
  );
  await appendDeltasAtPositions(tx, roomId, deltas);
  for (const { streamId, change, memberships } of changes) {
    for (const { userId, member } of memberships) {
      if (serverNameOf(userId) !== ctx.serverName) continue;
      const standing = member ?? (await standingAfterLoss(source, change, userId));
      if (standing === undefined) continue;
      await appendLocalMembership(tx, { streamId, userId, roomId, ...standing });
    }
  }
}

/** Of whoever is in no room with one of ours any more. */
async function forgetDeviceListsOf(
  { serverName: ourServer }: RoomsContext,
  { tx, roomId }: StateSource,
  changes: readonly MembershipChange[],
): Promise<void> {
  const departed = changes.filter(({ member }) => member?.membership !== "join").map(({ userId }) => userId);
  if (departed.length > 0) await forgetUnsharedDeviceLists(tx, roomId, { departed, ourServer });
}

/** A user whose join is gone from the state without another event in its place is in the room no more. */
async function standingAfterLoss(
  source: StateSource,
  change: CurrentStateChange,
  userId: UserId,
): Promise<{ readonly membership: "leave"; readonly eventId: EventId } | undefined> {
  const eventId = stateGet(change.previous, "m.room.member", userId);
  if (eventId === undefined) return undefined;
  const membership = (await loadMemberships(source.tx, [eventId])).get(eventId);
  return membership === "join" ? { membership: "leave", eventId } : undefined;
}

export function memberChanges(changes: ReadonlyMap<StateKey, EventId | null>): ReadonlyMap<UserId, EventId | null> {
  const members = new Map<UserId, EventId | null>();
  for (const [key, eventId] of changes) {
    const [type, stateKey] = splitStateKey(key);
    if (type === "m.room.member") members.set(stateKey as UserId, eventId);
  }
  return members;
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
