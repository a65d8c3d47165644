import { followForwardExtremities, type ForwardExtremities } from "../../matrix/forward-extremities.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { StateMap } from "../../matrix/state.ts";
import { loadEvent } from "../../storage/events.ts";
import { arrivalsFrom, type Arrival } from "../../storage/room-graph.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import { judgeByState } from "../events/judge-event.ts";
import { orTheJoin, positionOfJoin } from "../events/recompute-room.ts";
import { resolveRoomState } from "../events/resolve-room-state.ts";
import type { StateSource } from "../events/state-before-event.ts";

/** An event that a fully joined server would have soft-failed on its arrival. */
export interface SoftFailure {
  readonly eventId: EventId;
  /** Which auth rule refuses it by the room's state when it arrived, and why. */
  readonly rule: string;
  readonly reason: string;
}

/** How far a replay has come. */
export interface ReplayedArrivals {
  readonly joinEventId: EventId;
  /** The next arrival stands at this position or behind it. */
  position: bigint;
  readonly extremities: ForwardExtremities;
  readonly softFailures: SoftFailure[];
  /** The states after what has arrived, by event. */
  readonly stateAfter: Map<EventId, bigint>;
  /** The latest resolution over several extremities: message after message leaves it as it is. */
  resolved: { readonly key: string; readonly state: StateMap } | undefined;
}

/** @throws FullStateUnsound where the join is gone */
export async function beginReplay(source: StateSource, joinEventId: EventId): Promise<ReplayedArrivals> {
  return {
    joinEventId,
    position: await positionOfJoin(source, joinEventId),
    extremities: followForwardExtremities(),
    softFailures: [],
    stateAfter: new Map(),
    resolved: undefined,
  };
}

/**
 * Check 6, which was put off while the room was partial: what has arrived since our join is gone through in the order
 * of its arrival, with the forward extremities as they would have been, and each event is held against the resolution
 * of the full states after those. Not against the room's state of today: by that, every message of a user who has left
 * since would be refused.
 *
 * The events are repaired, so that their states and rejections change no more: this may run without the room's lock,
 * and be taken up under it for what has arrived meanwhile.
 *
 * @returns false at an event that came in on partial state meanwhile: once it is repaired, the replay begins anew
 */
export async function replayArrivals(source: StateSource, replay: ReplayedArrivals): Promise<boolean> {
  for (const arrival of await arrivalsFrom(source.tx, source.roomId, replay.position)) {
    if (arrival.partial) return false;
    replay.position = arrival.streamId + 1n;
    // Given up with an earlier join of ours: it has no part in this one.
    if (arrival.stateBefore === null || arrival.stateAfter === null) continue;
    replay.stateAfter.set(arrival.eventId, arrival.stateAfter);
    const failure = arrival.rejected ? undefined : await softFailureOf(source, replay, arrival);
    if (failure !== undefined) replay.softFailures.push(failure);
    if (arrival.rejected || failure !== undefined) replay.extremities.refuse(arrival);
    else replay.extremities.accept(arrival);
  }
  return true;
}

async function softFailureOf(
  source: StateSource,
  replay: ReplayedArrivals,
  arrival: Arrival,
): Promise<SoftFailure | undefined> {
  const extremities = orTheJoin(replay.extremities.current(), replay.joinEventId);
  if (passedAlready(replay, extremities, arrival)) return undefined;
  const event = await loadEvent(source.tx, arrival.eventId);
  if (event === undefined) return undefined;
  const verdict = await judgeByState({ ...source, event }, await stateOver(source, replay, extremities));
  if (verdict.allowed) return undefined;
  return { eventId: arrival.eventId, rule: verdict.rule, reason: verdict.reason };
}

/** Where the event builds on just the extremities, its check 5 was this very check. */
function passedAlready(
  replay: ReplayedArrivals,
  extremities: ReadonlySet<EventId>,
  { eventId, prevEventIds, stateBefore }: Arrival,
): boolean {
  if (eventId === replay.joinEventId) return true;
  const prevEvents = new Set(prevEventIds);
  if (prevEvents.size === extremities.size && [...extremities].every((id) => prevEvents.has(id))) return true;
  const snapshots = snapshotsAfter(replay, extremities);
  return snapshots.length === 1 && snapshots[0] === stateBefore;
}

async function stateOver(
  source: StateSource,
  replay: ReplayedArrivals,
  extremities: ReadonlySet<EventId>,
): Promise<StateMap> {
  const snapshots = snapshotsAfter(replay, extremities);
  const key = snapshots.join();
  if (replay.resolved?.key === key) return replay.resolved.state;
  const states: StateMap[] = [];
  for (const snapshotId of snapshots) states.push(await loadState(source.database, snapshotId, source.tx));
  const state = await resolveRoomState(source.tx, source.rules, states);
  replay.resolved = { key, state };
  return state;
}

function snapshotsAfter({ stateAfter }: ReplayedArrivals, extremities: ReadonlySet<EventId>): readonly bigint[] {
  const snapshots = [...extremities].map((id) => stateAfter.get(id)).filter((id) => id !== undefined);
  return [...new Set(snapshots)].toSorted((a, b) => (a < b ? -1 : 1));
}
