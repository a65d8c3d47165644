import { prevEventIds, type Event } from "../matrix/event.ts";
import type { EventId, RoomId, ServerName } from "../matrix/identifiers.ts";
import type { RoomVersionRules } from "../matrix/room-versions.ts";
import { rulesOf } from "../matrix/room-versions.ts";
import { transaction, type Connection } from "../storage/database.ts";
import { hasAcceptedChild } from "../storage/event-children.ts";
import { insertOutliers, insertTimelineEvent, loadEvent, loadEvents, type StoredEvent } from "../storage/events.ts";
import { joinedServers } from "../storage/memberships.ts";
import { addToOutbox } from "../storage/outbox.ts";
import { markPartial, partialEventIds, partialRoom, partialRoomServers } from "../storage/partial-state.ts";
import { forwardExtremities, lockRoom, setForwardExtremities } from "../storage/rooms.ts";
import { loadState } from "../storage/state-snapshots.ts";
import { takeStreamPositions } from "../storage/streams.ts";
import { rejectionText } from "./authorize-outliers.ts";
import type { RoomsContext } from "./context.ts";
import { foreignStateAfter, ForeignStateUnusable } from "./foreign-state.ts";
import { judgeByAuthEvents, judgeByPartialState, judgeByState } from "./judge-event.ts";
import {
  stateAfterEvent,
  stateBeforeEvent,
  type ForeignState,
  type StateSource,
  type StoredState,
} from "./state-before-event.ts";
import { announceStateChanges, updateCurrentState } from "./update-current-state.ts";

/** A prev_event is neither in a timeline of ours nor was its state given: the event can't be accepted yet. */
export class PrevEventsMissing extends Error {
  readonly eventIds: readonly EventId[];

  constructor(eventIds: readonly EventId[]) {
    super(`prev_events are missing: ${eventIds.join(", ")}`);
    this.name = "PrevEventsMissing";
    this.eventIds = eventIds;
  }
}

export class RoomUnknown extends Error {
  constructor(roomId: RoomId) {
    super(`room ${roomId} is not known here`);
    this.name = "RoomUnknown";
  }
}

export interface EventToAccept {
  /** Passed checks 1 to 3. */
  readonly event: Event;
  /** Where it came from: ourselves for an event of ours, whose refusal its maker is told. */
  readonly origin: ServerName;
  /** The states after prev_events that are in no timeline of ours. */
  readonly foreign?: readonly ForeignState[];
  /** Those states lack members, so that this event is partial. */
  readonly foreignIsPartial?: boolean;
  /** What must happen in the same transaction, after the event is stored. */
  readonly also?: (tx: Connection, stored: StoredEvent) => Promise<void>;
}

/**
 * Checks 4 to 6 of an event whose past is known, and its place in the room: state before and after, forward
 * extremities, current state, streams, outbox; all in one transaction under the room's lock. An event that is already
 * in the timeline is returned as it is.
 *
 * A refused event is stored with its refusal; the caller reads `rejection` and `softFailed` of the result.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
 * @throws PrevEventsMissing, AuthEventsMissing, RoomUnknown
 */
export async function acceptEvent(ctx: RoomsContext, input: EventToAccept): Promise<StoredEvent> {
  return await transaction(ctx.database, (tx) => acceptEventWithin(ctx, tx, input));
}

export async function acceptEventWithin(ctx: RoomsContext, tx: Connection, input: EventToAccept): Promise<StoredEvent> {
  const { event } = input;
  const room = await lockRoom(tx, event.roomId);
  const rules = room === undefined ? undefined : rulesOf(room.roomVersion);
  if (room === undefined || rules === undefined) throw new RoomUnknown(event.roomId);
  const existing = await loadEvent(tx, event.eventId);
  if (existing !== undefined && !existing.outlier) return existing;

  const source: StateSource = { database: ctx.database, tx, roomId: event.roomId, rules };
  const past = await pastOf(source, input);
  const refusal = await refusalOf({ ...source, event }, past);
  const roomIsPartial = (await partialRoom(tx, event.roomId)) !== undefined;
  const softFailed =
    refusal === null && !roomIsPartial && (await failsCurrentState(source, event, room.currentSnapshotId));

  const judged: Event = { ...event, rejected: refusal !== null };
  const after = await stateAfterEvent(source, past.before, judged);
  const visible = refusal === null && !softFailed;
  const extremities = visible ? await extremitiesWith(tx, judged) : undefined;
  // Who was in the room before is told too: a kick takes its target's server out of the room.
  const serversBefore = await joinedServers(tx, event.roomId);
  // The current state may come to name it, so it must be there; its place in the timeline follows.
  await insertOutliers(tx, [{ event: judged, rejection: refusal }]);
  const change =
    extremities === undefined
      ? undefined
      : await updateCurrentState(source, room.currentSnapshotId, await statesAfter(source, extremities, judged, after));

  const streamId = await takeStreamPositions(tx, 1);
  const place = {
    rejection: refusal,
    softFailed,
    stateBefore: past.before.snapshotId,
    stateAfter: after.snapshotId,
    streamId,
  };
  await insertTimelineEvent(tx, { event: judged, ...place });
  const stored: StoredEvent = { ...judged, ...place, outlier: false };
  if (past.partial) await markPartial(tx, event.roomId, event.eventId);
  if (extremities !== undefined) await setForwardExtremities(tx, event.roomId, extremities);
  if (change !== undefined) {
    await announceStateChanges(ctx, source, streamId, { told: change.changes, all: change.changes });
  }
  if (visible && input.origin === ctx.serverName) await fanOut(ctx, tx, judged, streamId, serversBefore);
  await input.also?.(tx, stored);
  return stored;
}

interface Past {
  readonly before: StoredState;
  /** A known prev_event is partial, so that the state before this event is. */
  readonly partial: boolean;
}

async function pastOf(source: StateSource, input: EventToAccept): Promise<Past> {
  const { event, foreign = [] } = input;
  const ids = prevEventIds(event.pdu);
  const known = await loadEvents(source.tx, ids);
  const told = new Set(foreign.map((one) => one.eventId));
  const prevEvents = ids.flatMap((id) => {
    const prev = known.get(id);
    return prev === undefined || prev.outlier ? [] : [prev];
  });
  const placed = new Set(prevEvents.map((prev) => prev.eventId));
  const given = foreign.filter((one) => !placed.has(one.eventId));
  const others = await toldStates(
    source,
    ids.filter((id) => !placed.has(id) && !told.has(id)),
  );
  const before = await stateBeforeEvent(source, prevEvents, [...given, ...others]);
  const byForeign = given.length > 0 && input.foreignIsPartial === true;
  return { before, partial: byForeign || (await partialEventIds(source.tx, [...placed])).size > 0 };
}

/** What other servers told of the states at prev_events that are in no timeline of ours. */
async function toldStates(source: StateSource, ids: readonly EventId[]): Promise<readonly ForeignState[]> {
  const states: ForeignState[] = [];
  const missing: EventId[] = [];
  for (const id of ids) {
    try {
      states.push(await foreignStateAfter(source, id));
    } catch (error) {
      if (!(error instanceof ForeignStateUnusable)) throw error;
      missing.push(id);
    }
  }
  if (missing.length > 0) throw new PrevEventsMissing(missing);
  return states;
}

async function refusalOf(
  judgement: { readonly tx: Connection; readonly rules: RoomVersionRules; readonly event: Event },
  past: Past,
): Promise<string | null> {
  const byAuthEvents = rejectionText(await judgeByAuthEvents(judgement));
  if (byAuthEvents !== null) return byAuthEvents;
  const byState = past.partial
    ? await judgeByPartialState(judgement, past.before.state)
    : await judgeByState(judgement, past.before.state);
  return rejectionText(byState);
}

async function failsCurrentState(source: StateSource, event: Event, snapshotId: bigint | null): Promise<boolean> {
  if (snapshotId === null) return false;
  const current = await loadState(source.database, snapshotId, source.tx);
  return !(await judgeByState({ ...source, event }, current)).allowed;
}

/** An event on which an accepted one builds already (a filled gap) is no extremity itself. */
async function extremitiesWith(tx: Connection, event: Event): Promise<readonly EventId[]> {
  const current = await forwardExtremities(tx, event.roomId);
  const superseded = new Set(prevEventIds(event.pdu));
  const rest = current.filter((id) => !superseded.has(id));
  return (await hasAcceptedChild(tx, event.roomId, event.eventId)) ? rest : [...rest, event.eventId];
}

async function statesAfter(
  source: StateSource,
  extremities: readonly EventId[],
  event: Event,
  after: StoredState,
): Promise<readonly StoredState[]> {
  const others = await loadEvents(
    source.tx,
    extremities.filter((id) => id !== event.eventId),
  );
  const states: StoredState[] = extremities.includes(event.eventId) ? [after] : [];
  for (const snapshotId of new Set([...others.values()].map((one) => one.stateAfter))) {
    if (snapshotId === null || states.some((one) => one.snapshotId === snapshotId)) continue;
    states.push({ snapshotId, state: await loadState(source.database, snapshotId, source.tx) });
  }
  return states;
}

/** Our own events go to every server of the room; while it is partial, also to those that the join named. */
async function fanOut(
  ctx: RoomsContext,
  tx: Connection,
  event: Event,
  streamId: bigint,
  serversBefore: readonly ServerName[],
): Promise<void> {
  const servers = new Set([
    ...serversBefore,
    ...(await joinedServers(tx, event.roomId)),
    ...(await partialRoomServers(tx, event.roomId)),
  ]);
  servers.delete(ctx.serverName);
  await addToOutbox(tx, { eventId: event.eventId, streamId, destinations: [...servers] });
}
