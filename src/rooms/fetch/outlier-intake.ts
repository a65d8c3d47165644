import type { Event } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { authorizeOutliers, type AuthorizedOutlier } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { verifyPdus, type DroppedPdu } from "../events/verify-pdus.ts";

/** Checked and stored together: large enough for bulk writes, small enough to heartbeat between two. */
const CHUNK = 1000;

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
  /** Takes one PDU of a long answer; the promise is the answer's back-pressure. */
  add(pdu: JsonValue): Promise<void>;
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

  /** One chunk after the other, also where several requests add at once. */
  async function flushInTurn(): Promise<void> {
    flushed = flushed.then(flush);
    await flushed;
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
    if ((await keep(result.authorized)) === "held") return;
    for (const id of held) known.delete(id);
    held.clear();
  }

  return {
    async add(pdu) {
      buffer.push(pdu);
      if (buffer.length >= CHUNK) await flushInTurn();
    },
    async settle() {
      await flushInTurn();
      return { kept, dropped, missingAuthEvents: missing, undecided };
    },
  };
}
