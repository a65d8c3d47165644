import type { LongObject, TextBatches } from "../../federation-api/long-json.ts";
import { MatrixError } from "../../federation-api/matrix-error.ts";
import { isStateEvent } from "../../matrix/event.ts";
import type { EventId, RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { restoredEvents } from "../../storage/changed-rooms.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { ClientEvent } from "../read/client-event.ts";
import { clientEventBatches, jsonTexts } from "../read/client-event-batches.ts";
import { toClientEvents } from "../read/client-events.ts";
import type { RoomsContext } from "../context.ts";
import { MOST_EVENTS } from "../events/event-portions.ts";
import { passesFilter } from "../read/event-filter.ts";
import { goneStateEvents } from "../read/gone-state.ts";
import { visibleEvents } from "../read/history-visibility.ts";
import { stateForSync } from "./sync-state.ts";
import { roomSummary } from "./sync-summary.ts";
import { syncToken } from "../read/sync-token.ts";
import type { SyncRequest } from "./sync.ts";
import { visibleTimeline } from "../read/visible-timeline.ts";

export interface RoomRange {
  readonly roomId: RoomId;
  /** Undefined where the client knows nothing of the room yet. */
  readonly since: bigint | undefined;
  readonly position: bigint;
  /** The state at the end of the range. */
  readonly snapshotId: bigint;
  /** Where the user has left the room. */
  readonly leftAt: bigint | undefined;
  /** The resync has come to its end within the range. */
  readonly isCompleted?: boolean;
  /** Users whose names the client needs besides those of the timeline's senders. */
  readonly heroes?: readonly UserId[];
}

interface JoinedRoom {
  readonly roomId: RoomId;
  readonly since: bigint | undefined;
  readonly position: bigint;
  readonly isPartial: boolean;
  readonly isCompleted: boolean;
}

const DEFAULT_LIMIT = 20;
const MAX_LIMIT = 1_000;

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_joined-room */
export async function joinedRoom(
  ctx: RoomsContext,
  request: SyncRequest,
  room: JoinedRoom,
): Promise<LongObject | undefined> {
  const snapshotId = (await loadRoom(ctx.database.pool, room.roomId))?.currentSnapshotId ?? null;
  if (snapshotId === null) {
    return undefined;
  }
  const range = { ...room, snapshotId, leftAt: undefined };
  const summary = await roomSummary(ctx, request, range, room.isPartial);
  const part = await roomUpTo(ctx, request, { ...range, heroes: summary?.["m.heroes"] ?? [] });
  // What changed may be hidden from this user, or of no interest to the filter.
  if (isEmpty(part) && !room.isCompleted && room.since !== undefined && !request.fullState) {
    return undefined;
  }
  return {
    timeline: part.timeline,
    ...stateGroup(request, part.state),
    ...(summary === undefined ? {} : { summary }),
    unread_notifications: { highlight_count: 0, notification_count: 0 },
  };
}

interface RoomPart {
  readonly timeline: { readonly events: readonly JsonObject[]; readonly limited: boolean; readonly prev_batch: string };
  readonly state: StateEvents;
}

/** Many of them are read while the answer is written. */
type StateEvents = readonly JsonObject[] | TextBatches;

function isEmpty({ timeline, state }: RoomPart): boolean {
  return timeline.events.length === 0 && Array.isArray(state) && state.length === 0;
}

/** The state under the name by which the client has asked for it. */
export function stateGroup({ stateAfter }: SyncRequest, events: StateEvents): LongObject {
  return { [stateAfter ? "state_after" : "state"]: { events } };
}

/** The timeline of the range, its newest end if it is too long, and the state that led up to it. */
export async function roomUpTo(ctx: RoomsContext, request: SyncRequest, range: RoomRange): Promise<RoomPart> {
  const viewer = { userId: request.requester.userId, leftAt: range.leftAt, snapshotId: range.snapshotId };
  const filter = request.filter.room?.timeline ?? {};
  const page = await visibleTimeline(ctx, range.roomId, viewer, {
    from: range.position,
    to: range.since,
    direction: "backward",
    limit: Math.min(filter.limit ?? DEFAULT_LIMIT, MAX_LIMIT),
    filter,
  });
  const arrived = page.events.toReversed();
  const limited = page.next !== undefined;
  const restored = limited ? [] : await restoredSince(ctx, request, range);
  const events = [
    ...(await visibleEvents(ctx, viewer, restored)).filter(({ pdu }) => passesFilter(pdu, filter)),
    ...arrived,
  ];
  const state = await stateForSync(ctx, request, { ...range, timeline: events, limited });
  const device = request.requester;
  return {
    timeline: {
      events: await toClientEvents(ctx, events, { withRoomId: false, device, withPrevContent: true }),
      limited,
      prev_batch: syncToken(startOf(arrived) ?? page.next ?? range.position),
    },
    state: await stateEvents(ctx, request, { range, ids: state }),
  };
}

async function stateEvents(
  ctx: RoomsContext,
  request: SyncRequest,
  { range, ids }: { readonly range: RoomRange; readonly ids: readonly EventId[] },
): Promise<StateEvents> {
  const filter = request.filter.room?.state ?? {};
  const isWanted = ({ pdu, rejected }: StoredEvent): boolean => !rejected && passesFilter(pdu, filter);
  const read = clientEventBatches(ctx, { roomId: range.roomId, ids, isWanted, withRoomId: false });
  const batches = orAskedAgain(read);
  const gone = await goneSince(ctx, request, range);
  if (ids.length > MOST_EVENTS) return jsonTexts(followedBy(batches, gone));
  const events: ClientEvent[] = [];
  for await (const batch of batches) events.push(...batch);
  return [...events, ...gone];
}

/** That one of the rooms is gone must not look as if there were no sync at all: the next one does without the room. */
async function* orAskedAgain(
  batches: AsyncIterable<readonly ClientEvent[]>,
): AsyncGenerator<readonly ClientEvent[], void> {
  try {
    yield* batches;
  } catch (error) {
    if (!(error instanceof MatrixError) || error.status !== 404) throw error;
    throw new MatrixError(503, "M_UNKNOWN", error.message);
  }
}

async function* followedBy(
  batches: AsyncIterable<readonly ClientEvent[]>,
  last: readonly ClientEvent[],
): AsyncGenerator<readonly ClientEvent[], void> {
  yield* batches;
  yield last;
}

async function goneSince(
  ctx: RoomsContext,
  request: SyncRequest,
  { roomId, since, position }: RoomRange,
): Promise<readonly ClientEvent[]> {
  if (since === undefined || request.fullState) return [];
  return goneStateEvents(ctx, roomId, {
    range: { from: since, to: position },
    filter: request.filter.room?.state ?? {},
  });
}

/**
 * A client takes the last event of a key in the timeline for the room's state: a restored one that another has replaced
 * long since would undo that, unless the client is given the state behind the timeline.
 */
async function restoredSince(
  { database: { pool } }: RoomsContext,
  { stateAfter }: SyncRequest,
  { roomId, since, position, snapshotId }: RoomRange,
): Promise<readonly StoredEvent[]> {
  if (since === undefined) return [];
  const restored = await restoredEvents(pool, roomId, { from: since, to: position });
  const keys = restored.flatMap(({ pdu }) => (isStateEvent(pdu) ? [[pdu.type, pdu.state_key] as const] : []));
  if (stateAfter || keys.length === 0) return restored;
  const standing = new Set((await lookUpManyInSnapshot(pool, snapshotId, keys)).values());
  return restored.filter(({ eventId, pdu }) => !isStateEvent(pdu) || standing.has(eventId));
}

/** The position before the first event. */
function startOf([first]: readonly StoredEvent[]): bigint | undefined {
  const streamId = first?.streamId ?? null;
  return streamId === null ? undefined : streamId - 1n;
}
