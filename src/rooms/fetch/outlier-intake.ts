import type { Event } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { authorizeOutliers, type AuthorizedOutlier } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { verifyPdus, type DroppedPdu } from "../events/verify-pdus.ts";

/** Checked and stored together: large enough for bulk writes, small enough to be checked while the last is stored. */
const CHUNK = 500;

/** Events that wait for their auth events are held in memory; beyond this they are let go and fetched again. */
const MAX_UNDECIDED = 20_000;

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
  // Asked for by nearly every event to come; members are too many to be kept beside the database.
  const known = new Map<EventId, Event>();
  // The members that are not in the database yet when the next chunk asks for them.
  const held = new Set<EventId>();
  let buffer: JsonValue[] = [];
  let undecided: readonly Event[] = [];
  let missing: ReadonlySet<EventId> = new Set();
  let kept = 0;
  let flushed: Promise<void> = Promise.resolve();
  let storing: Promise<void> = Promise.resolve();

  /** One chunk after the other, also where several requests add at once. */
  function flushInTurn(atLeast: number): Promise<void> {
    flushed = flushed.then(() => (buffer.length < atLeast ? undefined : flush()));
    // Whoever adds next, or settles, is told.
    flushed.catch(() => undefined);
    return flushed;
  }

  async function flush(): Promise<void> {
    const pdus = buffer;
    buffer = [];
    const verified = await verifyPdus(ctx, { roomId, rules, pdus, ...(wanted === undefined ? {} : { wanted }) });
    dropped.push(...verified.dropped.slice(0, MAX_DROPPED - dropped.length));
    const result = await authorizeOutliers(ctx.database.pool, rules, [...undecided, ...verified.events], known);
    for (const { event } of result.authorized) {
      known.set(event.eventId, event);
      if (event.pdu.type === "m.room.member") held.add(event.eventId);
    }
    undecided = result.undecided.slice(0, MAX_UNDECIDED);
    missing = result.missing;
    kept += result.authorized.length;
    await storing;
    // While it is stored the next chunk is checked, by what is held of this one.
    storing = store(result.authorized);
    storing.catch(() => undefined);
  }

  async function store(chunk: readonly AuthorizedOutlier[]): Promise<void> {
    const members = [...held];
    if ((await keep(chunk)) === "held") return;
    for (const id of members) {
      known.delete(id);
      held.delete(id);
    }
  }

  return {
    add(pdu) {
      buffer.push(pdu);
      if (buffer.length < CHUNK) return undefined;
      // The chunk before this one is checked while this one is read.
      const before = flushed;
      void flushInTurn(CHUNK);
      return before;
    },
    async settle() {
      await flushInTurn(0);
      await storing;
      return { kept, dropped, missingAuthEvents: missing, undecided };
    },
  };
}
