import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { authEventIds, prevEventIds, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { eventSizes } from "../../storage/event-sizes.ts";
import { hasState, type StoredEvent } from "../../storage/events.ts";
import { settlePartialEvents, type SettledEvent } from "../../storage/partial-state.ts";
import { loadResyncDrops, type ResyncDrop } from "../../storage/resync-drops.ts";
import type { ResyncEventChange } from "../../storage/resync-event-changes.ts";
import { deleteResyncStateIds } from "../../storage/resync-state-ids.ts";
import { loadEventsAndStanding } from "../../storage/room-graph.ts";
import { authEventIdsWithCreate, rejectionText, ruleAndReasonOf } from "../events/authorize-outliers.ts";
import type { EventsAtHand } from "../events/events-at-hand.ts";
import { judgeEvent } from "../events/judge-event.ts";
import { stateAfterEvent, stateBeforeEvent, type StateSource, type StoredState } from "../events/state-before-event.ts";
import { foreignStateAfter, ForeignStateUnusable } from "../events/foreign-state.ts";
import { stateBeforeDropped, verdictOnDropped } from "./dropped-event.ts";

export interface RepairedEvent {
  readonly eventId: EventId;
  /** Accepted before and rejected now, or the other way round. */
  readonly change: ResyncEventChange | undefined;
}

/**
 * Repairs of one transaction, one behind the other: what they ask for is read for all of them together, and what becomes
 * of them is written together, so that the room is locked for a few statements and not for a dozen an event.
 */
interface RepairTurn {
  readonly source: StateSource & { readonly atHand: EventsAtHand };
  readonly joinEventId: EventId;
  /** Of the events at hand those that are partial still. */
  readonly partialIds: Set<EventId>;
  readonly drops: ReadonlyMap<EventId, ResyncDrop>;
  unwritten: SettledEvent[];
}

/**
 * Repairs the events in this order, under the room's lock. Nothing happens to an event that another worker has repaired,
 * or whose past is not repaired yet.
 */
export async function repairInTurn(
  source: StateSource,
  joinEventId: EventId,
  eventIds: readonly EventId[],
): Promise<readonly RepairedEvent[]> {
  const repaired: RepairedEvent[] = [];
  const { events, partial } = await loadEventsAndStanding(source.tx, eventIds);
  // The database gives them in an order of its own, in which an event may come before its past.
  const inOrder = eventIds.flatMap((id) => events.get(id) ?? []);
  for (const portion of await portionsByWeight(source, inOrder)) {
    const turn = await openRepairTurn(source, joinEventId, { events: portion, partial });
    for (const { eventId } of portion) {
      const one = await repairOrForget(turn, eventId);
      if (one !== undefined) repaired.push(one);
    }
    await writeSettled(turn);
  }
  return repaired;
}

/** Events that are read at once, with those that they name, by the bytes of their JSON. */
const MAX_WEIGHT = 8 * 1024 * 1024;

/** All of them in one portion, but where somebody has made them large. */
async function portionsByWeight(
  { tx, rules }: StateSource,
  events: readonly StoredEvent[],
): Promise<readonly (readonly StoredEvent[])[]> {
  const named = new Map(events.map((event) => [event, [event.eventId, ...namedBy(event, rules)]]));
  const sizes = await eventSizes(tx, [...new Set([...named.values()].flat())]);
  const portions: StoredEvent[][] = [];
  let weight = Number.POSITIVE_INFINITY;
  for (const [event, ids] of named) {
    const own = ids.reduce((sum, id) => sum + (sizes.get(id) ?? 0), 0);
    weight += own;
    if (weight > MAX_WEIGHT) {
      portions.push([]);
      weight = own;
    }
    portions.at(-1)?.push(event);
  }
  return portions;
}

function namedBy(event: Event, rules: StateSource["rules"]): readonly EventId[] {
  return [...prevEventIds(event.pdu), ...authEventIdsWithCreate(event, rules)];
}

async function openRepairTurn(
  source: StateSource,
  joinEventId: EventId,
  { events, partial }: { readonly events: readonly StoredEvent[]; readonly partial: ReadonlySet<EventId> },
): Promise<RepairTurn> {
  const { tx, rules } = source;
  const own = new Map(events.map((event) => [event.eventId, event]));
  const named = new Set(events.flatMap((event) => namedBy(event, rules)));
  // Those of earlier portions among them are read as they are since their repair.
  const others = await loadEventsAndStanding(
    tx,
    [...named].filter((id) => !own.has(id)),
  );
  const known = new Map([...others.events, ...own]);
  const ids = [...own.keys()];
  return {
    source: { ...source, atHand: { known, unwritten: new Set() } },
    joinEventId,
    partialIds: new Set([...ids.filter((id) => partial.has(id)), ...others.partial]),
    drops: await loadResyncDrops(tx, ids),
    unwritten: [],
  };
}

/** Before anything is read from the database that depends on what has become of the events. */
async function writeSettled(turn: RepairTurn): Promise<void> {
  const settled = turn.unwritten;
  turn.unwritten = [];
  if (settled.length > 0) await settlePartialEvents(turn.source.tx, settled);
}

/** A state that was told and can't be used, or is gone, is forgotten: the next step fetches it anew. */
async function repairOrForget(turn: RepairTurn, eventId: EventId): Promise<RepairedEvent | undefined> {
  try {
    return await repairEvent(turn, eventId);
  } catch (error) {
    if (!(error instanceof ForeignStateUnusable)) throw error;
    await deleteResyncStateIds(turn.source.tx, turn.source.roomId, error.eventId);
    return undefined;
  }
}

async function repairEvent(turn: RepairTurn, eventId: EventId): Promise<RepairedEvent | undefined> {
  const { source, partialIds } = turn;
  const { known } = source.atHand;
  const event = known.get(eventId);
  if (event === undefined || !partialIds.has(eventId)) return undefined;
  // Of an auth event the verdict counts, which its repair may change.
  const past = [...prevEventIds(event.pdu), ...authEventIds(event.pdu)];
  if (past.some((id) => partialIds.has(id))) return undefined;

  const { before, verdict } = await fullyJudged(turn, event);
  const rejection = rejectionText(verdict);
  const judged = { ...event, rejected: rejection !== null, rejection };
  const after = await stateAfterEvent(source, before, judged);
  const settled = { stateBefore: before.snapshotId, stateAfter: after.snapshotId, rejection };
  turn.unwritten.push({ eventId, ...settled });
  known.set(eventId, { ...judged, ...settled });
  partialIds.delete(eventId);
  return { eventId, change: changeOf(event, verdict) };
}

/** The full state before the event, and what the auth rules, or an operator who has dropped it, say of it. */
async function fullyJudged(
  turn: RepairTurn,
  event: StoredEvent,
): Promise<{ readonly before: StoredState; readonly verdict: AuthVerdict }> {
  const { source, joinEventId } = turn;
  const prevIds = prevEventIds(event.pdu);
  const known = prevIds.flatMap((id) => {
    const prev = source.atHand.known.get(id);
    return hasState(prev, source.roomId) ? [prev] : [];
  });
  const placed = new Set(known.map((prev) => prev.eventId));
  const others = prevIds.filter((id) => !placed.has(id));
  const drop = turn.drops.get(event.eventId);
  const isPlain = new Set(known.map((prev) => prev.stateAfter)).size === 1 && others.length === 0;
  if (drop !== undefined || !isPlain) await writeSettled(turn);
  if (drop !== undefined) {
    return { before: await stateBeforeDropped(source, event, { known, joinEventId }), verdict: verdictOnDropped(drop) };
  }
  const foreign = [];
  for (const id of others) foreign.push(await foreignStateAfter(source, id));
  const before = await stateBeforeEvent(source, known, foreign);
  // Checks 4 and 5 are both asked again: an auth event may itself have been refused, or accepted, by its repair.
  const judgement = { ...source, event: { ...event, rejected: false } };
  return { before, verdict: await judgeEvent(judgement, { state: before.state, partial: false }) };
}

function changeOf({ eventId, rejection }: StoredEvent, verdict: AuthVerdict): ResyncEventChange | undefined {
  if (rejection === null) {
    return verdict.allowed ? undefined : { eventId, change: "rejected", rule: verdict.rule, reason: verdict.reason };
  }
  return verdict.allowed ? { eventId, change: "accepted", ...ruleAndReasonOf(rejection) } : undefined;
}
