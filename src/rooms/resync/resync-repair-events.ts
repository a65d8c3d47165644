import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { authEventIds, prevEventIds, type Event } from "../../matrix/event.ts";
import type { StateMap } from "../../matrix/state.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { rulesOf } from "../../matrix/room-versions.ts";
import type { Connection } from "../../storage/database.ts";
import { hasState, loadEvent, loadEvents, updateEventState, type StoredEvent } from "../../storage/events.ts";
import { deletePartialEvent, lockPartialRoom, partialEventIds } from "../../storage/partial-state.ts";
import { loadResyncDrop } from "../../storage/resync-drops.ts";
import { deleteResyncStateIds } from "../../storage/resync-state-ids.ts";
import type { ResyncEventChange } from "../../storage/resync-event-changes.ts";
import { lockRoom, setForwardExtremities, type RoomRow } from "../../storage/rooms.ts";
import { appendUnPartialStatedEvent, takeStreamPositions } from "../../storage/streams.ts";
import { rejectionText, ruleAndReasonOf } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { commit } from "../failpoints.ts";
import { foreignStateAfter, ForeignStateUnusable } from "../fetch/foreign-state.ts";
import { judgeEvent } from "../events/judge-event.ts";
import { recomputeRoom } from "../events/recompute-room.ts";
import { stateBeforeDropped, verdictOnDropped } from "./dropped-event.ts";
import type { ResyncTarget } from "./resync-next-step.ts";
import { stateAfterEvent, stateBeforeEvent, type StateSource, type StoredState } from "../events/state-before-event.ts";
import { applyCurrentState } from "../events/update-current-state.ts";
import { tellOfChanges } from "./tell-of-changes.ts";

export type EventsRepaired =
  | { readonly kind: "repaired"; readonly count: number; readonly rejectionsChanged: number }
  | { readonly kind: "superseded" };

interface RepairedEvent {
  readonly eventId: EventId;
  /** Accepted before and rejected now, or the other way round. */
  readonly change: ResyncEventChange | undefined;
}

/** One transaction holds this many repairs: few enough to heartbeat between two. */
const REPAIRS_PER_TRANSACTION = 25;

/**
 * Gives partial events their full state: computed, judged anew in both directions, stored, and the row in
 * `partial_state_events` deleted in the same transaction, which is the resync's checkpoint.
 *
 * @param onProgress told after each transaction
 */
export async function repairEvents(
  ctx: RoomsContext,
  target: ResyncTarget,
  eventIds: readonly EventId[],
  onProgress?: () => void,
): Promise<EventsRepaired> {
  let count = 0;
  let rejectionsChanged = 0;
  for (let start = 0; start < eventIds.length; start += REPAIRS_PER_TRANSACTION) {
    const ids = eventIds.slice(start, start + REPAIRS_PER_TRANSACTION);
    const repaired = await commit(ctx, "repair events", (tx) => repairWithin(ctx, tx, target, ids));
    if (repaired === undefined) return { kind: "superseded" };
    count += repaired.length;
    rejectionsChanged += changesOf(repaired).length;
    onProgress?.();
  }
  return { kind: "repaired", count, rejectionsChanged };
}

async function repairWithin(
  ctx: RoomsContext,
  tx: Connection,
  target: ResyncTarget,
  eventIds: readonly EventId[],
): Promise<readonly RepairedEvent[] | undefined> {
  const room = await lockRoom(tx, target.roomId);
  const partial = await lockPartialRoom(tx, target.roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined || partial?.joinEventId !== target.joinEventId) return undefined;

  const source: StateSource = { database: ctx.database, tx, roomId: target.roomId, rules };
  const repaired: RepairedEvent[] = [];
  for (const eventId of eventIds) {
    const one = await repairOrForget(source, eventId, target.joinEventId);
    if (one !== undefined) repaired.push(one);
  }
  if (repaired.length > 0) await tellOfRepairs(ctx, source, { room, joinEventId: target.joinEventId, repaired });
  return repaired;
}

interface Repairs {
  readonly room: RoomRow;
  readonly joinEventId: EventId;
  readonly repaired: readonly RepairedEvent[];
}

/** The room follows at once, not at its end: a refused event must be no prev_event of ours meanwhile. */
async function tellOfRepairs(
  ctx: RoomsContext,
  source: StateSource,
  { room, joinEventId, repaired }: Repairs,
): Promise<void> {
  const { tx, roomId } = source;
  const changes = changesOf(repaired);
  // The other states of the room may still be partial.
  const approximately: StateSource = { ...source, partialFor: ctx.serverName };
  const anew = changes.length > 0 ? await recomputeRoom(approximately, room, joinEventId) : undefined;
  const first = await takeStreamPositions(tx, repaired.length);
  for (const [index, { eventId, change }] of repaired.entries()) {
    const streamId = first + BigInt(index);
    await appendUnPartialStatedEvent(tx, { streamId, eventId, rejectionStatusChanged: change !== undefined });
  }
  if (anew !== undefined) {
    await setForwardExtremities(tx, roomId, anew.extremities);
    await applyCurrentState(ctx, source, anew.change, { streamId: first, told: anew.change.changes });
  }
  await tellOfChanges(ctx, source, { streamId: first, changes });
}

function changesOf(repaired: readonly RepairedEvent[]): readonly ResyncEventChange[] {
  return repaired.flatMap(({ change }) => (change === undefined ? [] : [change]));
}

/** A state that was told and can't be used, or is gone, is forgotten: the next step fetches it anew. */
async function repairOrForget(
  source: StateSource,
  eventId: EventId,
  joinEventId: EventId,
): Promise<RepairedEvent | undefined> {
  try {
    return await repairEvent(source, eventId, joinEventId);
  } catch (error) {
    if (!(error instanceof ForeignStateUnusable)) throw error;
    await deleteResyncStateIds(source.tx, source.roomId, error.eventId);
    return undefined;
  }
}

/** Nothing happens to an event that another worker has repaired, or whose past is not repaired yet. */
async function repairEvent(
  source: StateSource,
  eventId: EventId,
  joinEventId: EventId,
): Promise<RepairedEvent | undefined> {
  const { tx } = source;
  const event = await loadEvent(tx, eventId);
  if (event === undefined || !(await partialEventIds(tx, [eventId])).has(eventId)) return undefined;
  const prevIds = prevEventIds(event.pdu);
  // Of an auth event the verdict counts, which its repair may change.
  if ((await partialEventIds(tx, [...prevIds, ...authEventIds(event.pdu)])).size > 0) return undefined;

  const { before, verdict } = await fullyJudged(source, event, joinEventId);
  const rejection = rejectionText(verdict);
  const judged: Event = { ...event, rejected: rejection !== null };
  const after = await stateAfterEvent(source, before, judged);
  await updateEventState(tx, eventId, {
    stateBefore: before.snapshotId,
    stateAfter: after.snapshotId,
    rejection,
    softFailed: event.softFailed,
  });
  await deletePartialEvent(tx, eventId);
  return { eventId, change: changeOf(event, verdict) };
}

/** The full state before the event, and what the auth rules, or an operator who has dropped it, say of it. */
async function fullyJudged(
  source: StateSource,
  event: StoredEvent,
  joinEventId: EventId,
): Promise<{ readonly before: StoredState; readonly verdict: AuthVerdict }> {
  const prevIds = prevEventIds(event.pdu);
  const known = [...(await loadEvents(source.tx, prevIds)).values()].filter((prev) => hasState(prev, source.roomId));
  const drop = await loadResyncDrop(source.tx, event.eventId);
  if (drop !== undefined) {
    return { before: await stateBeforeDropped(source, event, { known, joinEventId }), verdict: verdictOnDropped(drop) };
  }
  const placed = new Set(known.map((prev) => prev.eventId));
  const foreign = [];
  for (const id of prevIds) if (!placed.has(id)) foreign.push(await foreignStateAfter(source, id));
  const before = await stateBeforeEvent(source, known, foreign);
  return { before, verdict: await judgeAnew(source, event, before.state) };
}

function changeOf({ eventId, rejection }: StoredEvent, verdict: AuthVerdict): ResyncEventChange | undefined {
  if (rejection === null) {
    return verdict.allowed ? undefined : { eventId, change: "rejected", rule: verdict.rule, reason: verdict.reason };
  }
  return verdict.allowed ? { eventId, change: "accepted", ...ruleAndReasonOf(rejection) } : undefined;
}

/** Checks 4 and 5 are both asked again: an auth event may itself have been refused, or accepted, by its repair. */
async function judgeAnew(source: StateSource, event: StoredEvent, state: StateMap): Promise<AuthVerdict> {
  return await judgeEvent({ ...source, event: { ...event, rejected: false } }, { state, partial: false });
}
