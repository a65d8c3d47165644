import type { Event } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import { jsonWeight } from "../../matrix/json-weight.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { authorizeOutliers, type AuthorizedOutlier } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { verifyPdus, type DroppedPdu } from "../events/verify-pdus.ts";

/** Checked and stored together: large enough for bulk writes, small enough to be checked while the last is stored. */
const CHUNK = 500;

const MIB = 1024 * 1024;

/** Of events as large as they may be, far fewer: honest ones weigh two or three KiB. */
const MAX_CHUNK_WEIGHT = 2 * MIB;

/** Events that wait for their auth events are held in memory; beyond this they are let go and fetched again. */
const MAX_UNDECIDED = 20_000;
const MAX_UNDECIDED_WEIGHT = 16 * MIB;

/** Asked for by nearly every event to come. All others are looked up in the database. */
const NAMED_BY_MANY: ReadonlySet<string> = new Set(["m.room.create", "m.room.power_levels", "m.room.join_rules"]);
const MAX_NAMED_WEIGHT = 8 * MIB;

/** An answer of a gigabyte has room for hundreds of millions of things that are no events. */
const MAX_DROPPED = 20_000;

/** Where all that was handed on so far is: in the database, or with the taker. */
type Kept = "stored" | "held";

interface OutlierIntakeOptions {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** Takes each chunk of checked events, the auth events of an event always before it. */
  readonly keep: (chunk: readonly AuthorizedOutlier[]) => Promise<Kept>;
  /** Only these are wanted; others are dropped unread. Absent: all. */
  readonly wanted?: ReadonlySet<EventId>;
}

export interface OutlierIntakeResult {
  readonly kept: number;
  /** The first {@link MAX_DROPPED}. */
  readonly dropped: readonly DroppedPdu[];
  /** Events that could not be judged for want of these. */
  readonly missingAuthEvents: ReadonlySet<EventId>;
  readonly undecided: readonly Event[];
}

export interface OutlierIntake {
  /** Takes one PDU of a long answer; a promise is the answer's back-pressure. */
  add(pdu: JsonValue): Promise<void> | undefined;
  /** Handles what was added so far and reports the whole; more may be added afterwards. */
  settle(): Promise<OutlierIntakeResult>;
}

/**
 * Takes in events that come in bulk and in any order (of `/send_join`, `/state`, `/event`): checks 1 to 3, then check 4
 * as soon as an event's auth events are there, then hands them on chunk by chunk. Memory is bounded.
 */
export function createOutlierIntake(ctx: RoomsContext, options: OutlierIntakeOptions): OutlierIntake {
  const { roomId, rules, keep, wanted } = options;
  const dropped: DroppedPdu[] = [];
  const known = createKnownEvents();
  let buffer: JsonValue[] = [];
  let weight = 0;
  let undecided: readonly Event[] = [];
  let missing: ReadonlySet<EventId> = new Set();
  let kept = 0;
  let flushed: Promise<void> = Promise.resolve();
  let storing: Promise<void> = Promise.resolve();

  const isFull = (): boolean => buffer.length >= CHUNK || weight >= MAX_CHUNK_WEIGHT;

  /** One chunk after the other, also where several requests add at once. */
  function flushInTurn(isDue: () => boolean): Promise<void> {
    flushed = flushed.then(() => (isDue() ? flush() : undefined));
    // Whoever adds next, or settles, is told.
    flushed.catch(() => undefined);
    return flushed;
  }

  function drop(more: readonly DroppedPdu[]): void {
    dropped.push(...more.slice(0, MAX_DROPPED - dropped.length));
  }

  async function flush(): Promise<void> {
    const pdus = buffer;
    buffer = [];
    weight = 0;
    const verified = await verifyPdus(ctx, { roomId, rules, pdus, ...(wanted === undefined ? {} : { wanted }) });
    drop(verified.dropped);
    const input = [...undecided, ...verified.events];
    const result = await authorizeOutliers(ctx.database.pool, rules, input, known.events());
    drop(result.cyclic.map(({ eventId }) => ({ kind: "ring", eventId, reason: RING })));
    undecided = withinWeight(result.undecided);
    missing = result.missing;
    kept += result.authorized.length;
    await storing;
    // While it is stored the next chunk is checked, by what is held of this one.
    known.hold(result.authorized.map(({ event }) => event));
    storing = keep(result.authorized).then((where) => (where === "stored" ? known.stored() : undefined));
    storing.catch(() => undefined);
  }

  return {
    add(pdu) {
      buffer.push(pdu);
      weight += jsonWeight(pdu);
      if (!isFull()) return undefined;
      // The chunk before this one is checked while this one is read.
      const before = flushed;
      void flushInTurn(isFull);
      return before;
    },
    async settle() {
      await flushInTurn(() => true);
      await storing;
      return { kept, dropped, missingAuthEvents: missing, undecided };
    },
  };
}

/** Possible only where senders choose ids. */
const RING = "it authorizes itself by way of other events, or builds on one that does";

function withinWeight(events: readonly Event[]): readonly Event[] {
  let weight = 0;
  return events.slice(0, MAX_UNDECIDED).filter(({ pdu }) => {
    weight += jsonWeight(pdu);
    return weight <= MAX_UNDECIDED_WEIGHT;
  });
}

interface KnownEvents {
  events(): ReadonlyMap<EventId, Event>;
  /** Not in the database yet, so that they can be looked up nowhere else. */
  hold(events: readonly Event[]): void;
  /** All that was held until now is stored. */
  stored(): void;
}

function createKnownEvents(): KnownEvents {
  const named = new Map<EventId, Event>();
  const held = new Map<EventId, Event>();
  let weight = 0;
  const name = (event: Event): void => {
    if (!NAMED_BY_MANY.has(event.pdu.type)) return;
    weight += jsonWeight(event.pdu);
    named.set(event.eventId, event);
  };
  return {
    events: () => new Map([...named, ...held]),
    hold(events) {
      for (const event of events) held.set(event.eventId, event);
    },
    stored() {
      for (const event of held.values()) name(event);
      held.clear();
      if (weight <= MAX_NAMED_WEIGHT) return;
      named.clear();
      weight = 0;
    },
  };
}
