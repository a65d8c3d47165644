import type { EventId } from "../../matrix/identifiers.ts";
import { isStateEvent } from "../../matrix/event.ts";
import { splitStateKey, stateApply, stateDiff, stateEntries, stateKeyOf, stateOver } from "../../matrix/state.ts";
import type { StateKey } from "../../matrix/state.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { currentStateDelta } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { memberEventsOfSenders } from "../read/lazy-members.ts";
import type { RoomRange } from "./sync-joined-room.ts";
import type { SyncRequest } from "./sync.ts";

interface RoomTimeline extends RoomRange {
  readonly timeline: readonly StoredEvent[];
  /** Older events of the range are left out. */
  readonly limited: boolean;
}

/**
 * The ids of the state events that a client must know before it reads the timeline: all of the state at its start, or what has
 * changed since the client asked last and is not told by the timeline itself. Or else, if the client wants that, the
 * state behind the timeline: all of it, or what has changed, whether the timeline tells it or not.
 *
 * What is rejected, or not wanted by the filter, is still among them.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#syncing
 */
export async function stateForSync(
  ctx: RoomsContext,
  request: SyncRequest,
  room: RoomTimeline,
): Promise<readonly EventId[]> {
  const filter = request.filter.room?.state ?? {};
  const lazy = filter.lazy_load_members === true;
  const whole = room.since === undefined || request.fullState;
  const entries = whole ? await wholeState(ctx, request, room) : await stateChanges(ctx, request, room);
  // A lazy-loading client is told of members only where it may know them otherwise: when a change of them stands in no
  // timeline, as after a resync. Whoever has missed a part of the timeline asks for the members it needs.
  const membersToo = !lazy || (!whole && !room.limited);
  const ids: EventId[] = [];
  for (const [key, eventId] of entries) if (membersToo || !isMember(key)) ids.push(eventId);
  if (!lazy) return ids;
  const members = await membersForTimeline(ctx, request, room);
  return [...new Set([...ids, ...members.map(({ eventId }) => eventId)])];
}

function isMember(key: StateKey): boolean {
  return splitStateKey(key)[0] === "m.room.member";
}

/** The members' events that the timeline itself tells are left out, but for what they were before it. */
async function membersForTimeline(
  ctx: RoomsContext,
  request: SyncRequest,
  room: RoomTimeline,
): Promise<readonly StoredEvent[]> {
  const own = room.since === undefined || request.fullState ? [request.requester.userId] : [];
  const others = [...own, ...(room.heroes ?? [])];
  if (request.stateAfter) {
    return memberEventsOfSenders(ctx, room.snapshotId, room.timeline, others);
  }
  const start = room.timeline[0]?.stateBefore ?? room.snapshotId;
  const members = await memberEventsOfSenders(ctx, start, room.timeline, others);
  const inTimeline = new Set(room.timeline.map(({ eventId }) => eventId));
  return members.filter(({ eventId }) => !inTimeline.has(eventId));
}

/**
 * The state before the first event of the timeline, corrected where it and the timeline would not lead to the state at
 * the end of the range: state resolution may have decided otherwise.
 */
async function wholeState(
  ctx: RoomsContext,
  request: SyncRequest,
  room: RoomTimeline,
): Promise<Iterable<readonly [StateKey, EventId]>> {
  const end = await loadState(ctx.database, room.snapshotId);
  if (request.stateAfter) {
    return stateEntries(end);
  }
  const startId = room.timeline[0]?.stateBefore ?? room.snapshotId;
  const start = await loadState(ctx.database, startId);
  const steps = room.timeline.flatMap(({ eventId, pdu }) =>
    isStateEvent(pdu) ? [[stateKeyOf(pdu.type, pdu.state_key), eventId] as const] : [],
  );
  return stateEntries(stateOver(start, stateDiff(stateApply(start, steps), end)));
}

async function stateChanges(
  ctx: RoomsContext,
  request: SyncRequest,
  room: RoomTimeline,
): Promise<ReadonlyMap<StateKey, EventId>> {
  const inTimeline = new Set(request.stateAfter ? [] : room.timeline.map(({ eventId }) => eventId));
  const range = { from: room.since ?? room.position, to: room.position };
  const changes = await currentStateDelta(ctx.database.pool, room.roomId, range);
  return new Map(
    [...changes].flatMap(([key, eventId]) => (eventId === null || inTimeline.has(eventId) ? [] : [[key, eventId]])),
  );
}
