import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import { emptyState, stateGet, stateKeyOf, type StateKey, type StateMap } from "../../matrix/state.ts";
import { loadEvent } from "../../storage/events.ts";
import { addUnknownMembers, members } from "../../storage/memberships.ts";
import { holdPartialRoom } from "../../storage/partial-state.ts";
import { holdRoom, loadRoom } from "../../storage/rooms.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { ENTRIES_BETWEEN_PAUSES, withPauses } from "../with-pauses.ts";
import { differenceOfStates } from "../events/difference-of-states.ts";
import { separateUnknown, type SeparatedChange } from "../events/news-for-clients.ts";
import type { StateSource } from "../events/state-before-event.ts";
import { memberChanges, type CurrentStateChange } from "../events/update-current-state.ts";
import type { ResyncTarget } from "./resync-next-step.ts";

/** What makes a room whole. */
interface Compared {
  /** The change of its current state. */
  readonly difference: SeparatedChange;
  /** What of the change is not written of its members yet. */
  readonly left: ReadonlyMap<StateKey, EventId | null>;
}

/** Members of a full state that stand in the database before the room is declared whole. */
export interface MembersAhead extends Compared {
  /** The room's current state when they were compared with it. */
  readonly comparedWith: bigint | null;
  /** The full state by which the room will go, as far as can be said. */
  readonly fullSnapshotId: bigint | null;
  readonly written: ReadonlyMap<UserId, EventId>;
}

/** Rows a transaction: whoever writes of the room's members meanwhile waits for some milliseconds. */
const CHUNK = 1_000;

/** PostgreSQL has a process for each; this one does next to nothing. */
const WRITERS = 2;

/**
 * Writes most of the members of a full state while the room can be used: under its lock, tens of thousands of rows
 * would hold up everyone who sends. Only users of other servers, of whom the partial state knows nothing; they are
 * members in truth, although the room's current state does not say so yet. Should the room be given up, they go again.
 *
 * @param extremity an event by whose full state the room will go, about
 * @throws the reason of the signal
 */
export async function writeMembersAhead(
  ctx: RoomsContext,
  target: ResyncTarget,
  { extremity, signal }: { readonly extremity: EventId; readonly signal?: AbortSignal | undefined },
): Promise<MembersAhead> {
  const { database } = ctx;
  const room = await loadRoom(database.pool, target.roomId);
  const comparedWith = room?.currentSnapshotId ?? null;
  const fullSnapshotId = (await loadEvent(database.pool, extremity))?.stateAfter ?? null;
  const partialState = comparedWith === null ? emptyState : await loadState(database, comparedWith);
  const full = fullSnapshotId === null ? emptyState : await loadState(database, fullSnapshotId);
  const written = new Map(await leftByEarlierAttempts(ctx, target, { partialState, full }));
  const changes = await differenceOfStates(partialState, full);
  const difference = await separateUnknown(ctx, { previous: partialState, changes });
  const unknown = [...difference.unknown];
  for (const [userId, eventId] of await writeInChunks(ctx, target, unknown, signal)) written.set(userId, eventId);
  const left = await withPauses(leftToWrite({ difference, full, written }, written));
  return { comparedWith, fullSnapshotId, difference, written, left };
}

type MemberEvent = readonly [userId: UserId, eventId: EventId];

interface ComparedStates {
  readonly partialState: StateMap;
  readonly full: StateMap;
}

/** An attempt that came to no end may have gone by another full state: whoever stands there by that has to go again. */
async function leftByEarlierAttempts(
  { serverName, database }: RoomsContext,
  { roomId }: ResyncTarget,
  { partialState, full }: ComparedStates,
): Promise<readonly MemberEvent[]> {
  return (await members(database.pool, roomId)).flatMap(({ userId, eventId }) => {
    const isUnknown = stateGet(partialState, "m.room.member", userId) === undefined;
    const isOfFull = stateGet(full, "m.room.member", userId) === eventId;
    return isUnknown && !isOfFull && serverNameOf(userId) !== serverName ? [[userId, eventId] as const] : [];
  });
}

/** Those of the members who stand there now. */
async function writeInChunks(
  ctx: RoomsContext,
  target: ResyncTarget,
  unknown: readonly MemberEvent[],
  signal: AbortSignal | undefined,
): Promise<readonly MemberEvent[]> {
  const standing: MemberEvent[] = [];
  let next = 0;
  const writer = async (): Promise<void> => {
    while (next < unknown.length) {
      signal?.throwIfAborted();
      const start = next;
      next += CHUNK;
      const written = await writeChunk(ctx, target, unknown.slice(start, start + CHUNK));
      if (written === "superseded") return;
      standing.push(...written);
    }
  };
  // The next attempt must not meet one that still writes.
  const ends = await Promise.allSettled(
    Array.from({ length: WRITERS }, async () => {
      await writer().finally(() => {
        next = unknown.length;
      });
    }),
  );
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  return standing;
}

async function writeChunk(
  ctx: RoomsContext,
  { roomId, joinEventId }: ResyncTarget,
  chunk: readonly MemberEvent[],
): Promise<readonly MemberEvent[] | "superseded"> {
  return await commit(ctx, "write members ahead", async (tx) => {
    // In the order of those who purge the room.
    await holdRoom(tx, roomId);
    // Whoever gives the room up meanwhile waits, and then takes these members away too.
    const partial = await holdPartialRoom(tx, roomId);
    if (partial?.joinEventId !== joinEventId) return "superseded";
    const given = chunk.map(([userId, eventId]) => ({ userId, eventId }));
    const standing = new Set(await addUnknownMembers(tx, roomId, given));
    return chunk.filter(([userId]) => standing.has(userId));
  });
}

/**
 * The change by which the room becomes whole, and what of it is left to be written of its members, under the room's lock.
 * Nothing may be forgotten: where the room has changed since the members were compared, each of its rows is compared
 * anew.
 */
export async function comparedUnderLock(
  ctx: RoomsContext,
  { tx, roomId }: Pick<StateSource, "tx" | "roomId">,
  change: CurrentStateChange,
  ahead: MembersAhead,
): Promise<Compared> {
  const isFromSame = change.previousSnapshotId === ahead.comparedWith;
  if (isFromSame && change.snapshotId === ahead.fullSnapshotId) return ahead;
  const difference = await separateUnknown(ctx, change);
  const standing = isFromSame
    ? ahead.written
    : new Map((await members(tx, roomId)).map(({ userId, eventId }) => [userId, eventId]));
  const compared = { difference, full: change.current, written: ahead.written };
  return { difference, left: await withPauses(leftToWrite(compared, standing)) };
}

interface WrittenAhead {
  readonly difference: SeparatedChange;
  readonly full: StateMap;
  readonly written: ReadonlyMap<UserId, EventId>;
}

function* leftToWrite(
  { difference, full, written }: WrittenAhead,
  standing: ReadonlyMap<UserId, EventId>,
): Generator<void, ReadonlyMap<StateKey, EventId | null>> {
  const left = new Map<StateKey, EventId | null>();
  const due = [memberChanges(difference.others), difference.unknown];
  let compared = 0;
  for (const changes of due) {
    for (const [userId, eventId] of changes) {
      if (eventId === null || standing.get(userId) !== eventId) left.set(stateKeyOf("m.room.member", userId), eventId);
      if ((compared += 1) % ENTRIES_BETWEEN_PAUSES === 0) yield;
    }
  }
  // What was written ahead, and is not so after all.
  for (const [userId, eventId] of written) {
    if ((compared += 1) % ENTRIES_BETWEEN_PAUSES === 0) yield;
    if (difference.unknown.get(userId) === eventId) continue;
    const actual = stateGet(full, "m.room.member", userId) ?? null;
    if (actual !== eventId) left.set(stateKeyOf("m.room.member", userId), actual);
  }
  return left;
}
