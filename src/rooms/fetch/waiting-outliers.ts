import type { Event, Pdu } from "../../matrix/event.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../matrix/json.ts";
import { jsonWeight } from "../../matrix/json-weight.ts";
import { createPackedTexts, type PackedText, type PackedTexts } from "./packed-texts.ts";

const MIB = 1024 * 1024;

/** All that waits in this process may weigh so much: some 130,000 honest members of a KiB each. */
const MAX_WEIGHT = 64 * MIB;

/** From here on they are compressed, to a quarter. The members of most rooms have room without it. */
const TIGHT_FROM = 8 * MIB;

/** Of one answer, so much may wait in any case, unless it is said otherwise: others may be hostile, and slow. */
const OWN_WEIGHT = MIB / 2;

/** And so much of what others wait for: an auth chain makes room again. */
const RESERVE = 7 * MIB;

/** What a waiting event takes beside its text, and a missing one beside its id, about. */
const WAITING = 280;
const MISSING = 250;

/** An event that is held as a text until its auth events have come. */
interface WaitingEvent extends PackedText {
  readonly eventId: EventId;
  /** Of memory, once it is read. */
  readonly weight: number;
  readonly lacks: readonly MissingEvent[];
  lacking: number;
}

interface MissingEvent {
  readonly eventId: EventId;
  waiting: WaitingEvent[];
}

/** With its JSON, which nobody has to write again. */
export interface EventWithText {
  readonly event: Event;
  readonly pduText: string;
}

/** What still waits when no more events come. */
export interface StillWaiting {
  /** They authorize themselves by way of others, or build on such ones: they wait no longer. */
  readonly rings: readonly EventId[];
  /** All others. */
  readonly undecided: readonly EventId[];
  /** What these lack. */
  readonly missing: ReadonlySet<EventId>;
}

/** Events that passed checks 1 to 3 and lack auth events, by what they lack. */
export interface WaitingOutliers {
  has(eventId: EventId): boolean;
  /** False where there is no room for the event: it is let go. */
  hold(event: Event, absent: readonly EventId[]): boolean;
  /** These can be had by now: whoever lacked nothing else is ready. */
  arrived(eventIds: Iterable<EventId>): void;
  /** Takes out events that are ready, or are with those taken: no more than so many, and of little more than this weight. */
  takeReady(most: number, maxWeight: number): readonly EventWithText[];
  /** What others wait for and has not come. */
  missing(): ReadonlySet<EventId>;
  /** To be asked when nothing is ready. */
  stillWaiting(): StillWaiting;
  /** Lets all go that still waits, and holds nothing any more. */
  end(): void;
}

export function createWaitingOutliers(roomId: RoomId, ownWeight = OWN_WEIGHT): WaitingOutliers {
  const held: Held = {
    ownWeight,
    texts: createPackedTexts(
      () => weightInProcess > TIGHT_FROM,
      (weight) => weigh(held, weight),
    ),
    waiting: new Map(),
    lacked: new Map(),
    lastLacks: [],
    ready: [],
    weight: 0,
    reserve: RESERVE,
    ended: false,
  };
  return {
    has: (eventId) => held.waiting.has(eventId),
    hold: (event, absent) => hold(held, event, absent),
    arrived: (eventIds) => arrived(held, eventIds),
    takeReady: (most, maxWeight) => takeReady(held, { roomId, most, maxWeight }),
    missing: () => missing(held),
    stillWaiting: () => stillWaiting(held),
    end: () => end(held),
  };
}

/** Of all answers that are taken in. */
let weightInProcess = 0;

interface Held {
  readonly ownWeight: number;
  readonly texts: PackedTexts;
  readonly waiting: Map<EventId, WaitingEvent>;
  readonly lacked: Map<EventId, MissingEvent>;
  lastLacks: readonly MissingEvent[];
  readonly ready: WaitingEvent[];
  weight: number;
  /** What is left of {@link RESERVE}. */
  reserve: number;
  ended: boolean;
}

function weigh(held: Held, weight: number): void {
  held.weight += weight;
  weightInProcess += weight;
}

function hold(held: Held, { eventId, pdu }: Event, absent: readonly EventId[]): boolean {
  const json = stringifyJson(pdu);
  if (held.ended || !hasRoom(held, eventId, WAITING + Buffer.byteLength(json))) return false;
  const lacks = lacksOf(held, absent);
  const { block, start, end } = held.texts.add(json);
  const one: WaitingEvent = { eventId, block, start, end, weight: jsonWeight(pdu), lacks, lacking: lacks.length };
  for (const { waiting } of lacks) waiting.push(one);
  held.waiting.set(eventId, one);
  weigh(held, WAITING);
  return true;
}

function hasRoom(held: Held, eventId: EventId, weight: number): boolean {
  if (weightInProcess + weight <= MAX_WEIGHT || held.weight + weight <= held.ownWeight) return true;
  if (!held.lacked.has(eventId) || held.reserve < weight) return false;
  held.reserve -= weight;
  return true;
}

/** Most lack the same as the one before them: a list for all of these. */
function lacksOf(held: Held, absent: readonly EventId[]): readonly MissingEvent[] {
  const lacks = [...new Set(absent)].map((id) => missingEvent(held, id));
  const { lastLacks } = held;
  if (lacks.length !== lastLacks.length || lacks.some((one, index) => one !== lastLacks[index])) held.lastLacks = lacks;
  return held.lastLacks;
}

function letGo(held: Held, { eventId }: WaitingEvent): void {
  held.waiting.delete(eventId);
  weigh(held, -WAITING);
}

function missingEvent(held: Held, eventId: EventId): MissingEvent {
  const known = held.lacked.get(eventId);
  if (known !== undefined) return known;
  const lacked: MissingEvent = { eventId, waiting: [] };
  held.lacked.set(eventId, lacked);
  weigh(held, MISSING + eventId.length);
  return lacked;
}

function forgetMissing(held: Held, eventId: EventId): void {
  if (held.lacked.delete(eventId)) weigh(held, -(MISSING + eventId.length));
}

function arrived(held: Held, eventIds: Iterable<EventId>): void {
  for (const eventId of eventIds) {
    for (const one of held.lacked.get(eventId)?.waiting ?? []) {
      one.lacking -= 1;
      if (one.lacking === 0) held.ready.push(one);
    }
    forgetMissing(held, eventId);
  }
}

interface Portion {
  readonly roomId: RoomId;
  readonly most: number;
  readonly maxWeight: number;
}

function takeReady(held: Held, { roomId, most, maxWeight }: Portion): readonly EventWithText[] {
  const taken: EventWithText[] = [];
  let weight = 0;
  while (taken.length < most && weight < maxWeight) {
    const one = held.ready.pop();
    if (one === undefined) break;
    letGo(held, one);
    weight += one.weight;
    taken.push(read(held, one, roomId));
    // Whoever lacked nothing else can be judged with it: a chain that came the wrong way round is no turn for each.
    arrived(held, [one.eventId]);
  }
  return taken;
}

function read(held: Held, one: WaitingEvent, roomId: RoomId): EventWithText {
  const { eventId } = one;
  const pduText = held.texts.take(one);
  // It was checked before it had to wait.
  return { event: { eventId, roomId, pdu: parseJson(pduText) as Pdu, rejected: false }, pduText };
}

function missing({ lacked, waiting }: Held): ReadonlySet<EventId> {
  return new Set([...lacked.keys()].filter((id) => !waiting.has(id)));
}

function stillWaiting(held: Held): StillWaiting {
  const edgesOf = ({ lacks }: WaitingEvent): readonly EventId[] => lacks.map(({ eventId }) => eventId);
  const { ordered, cyclic } = topologicalOrder(held.waiting.values(), edgesOf);
  for (const one of cyclic) {
    letGo(held, one);
    held.texts.drop(one);
  }
  if (cyclic.length > 0) forgetWhatNobodyLacks(held);
  return {
    rings: cyclic.map(({ eventId }) => eventId),
    undecided: ordered.map(({ eventId }) => eventId),
    missing: missing(held),
  };
}

/** Those who are gone are told nothing any more. */
function forgetWhatNobodyLacks(held: Held): void {
  for (const lacked of held.lacked.values()) {
    const left = lacked.waiting.filter((one) => held.waiting.get(one.eventId) === one);
    if (left.length === 0) forgetMissing(held, lacked.eventId);
    else lacked.waiting = left;
  }
}

function end(held: Held): void {
  held.ended = true;
  weigh(held, -held.weight);
  held.waiting.clear();
  held.lacked.clear();
  held.ready.length = 0;
}
