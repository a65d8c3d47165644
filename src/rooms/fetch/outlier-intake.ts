import type { Event } from "../../matrix/event.ts";
import type { EventId, RoomId } from "../../matrix/identifiers.ts";
import type { JsonValue } from "../../matrix/json.ts";
import { jsonWeight } from "../../matrix/json-weight.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { whichExist } from "../../storage/events.ts";
import { authorizeOutliers, type AuthorizedOutlier } from "../events/authorize-outliers.ts";
import type { RoomsContext } from "../context.ts";
import { verifyPdus, type DroppedPdu } from "../events/verify-pdus.ts";
import { createKnownOutliers } from "./known-outliers.ts";
import { createWaitingOutliers, type EventWithText } from "./waiting-outliers.ts";

/** Checked and stored together: large enough for bulk writes, small enough to be checked while the last is stored. */
const CHUNK = 250;

/** Of events as large as they may be, far fewer: honest ones weigh two or three KiB. */
const MAX_CHUNK_WEIGHT = 2 * 1024 * 1024;

/** An answer of a gigabyte has room for hundreds of millions of things that are no events. */
const MAX_DROPPED = 20_000;
const MAX_LET_GO = 100_000;

/** Where all that was handed on so far is: in the database, or with the taker. */
type Kept = "stored" | "held";

/** An event that was handed on, with its JSON where that is at hand. */
export type TakenOutlier = AuthorizedOutlier & { readonly pduText?: string };

interface OutlierIntakeOptions {
  readonly roomId: RoomId;
  readonly rules: RoomVersionRules;
  /** Takes each chunk of checked events, the auth events of an event always before it. */
  readonly keep: (chunk: readonly TakenOutlier[]) => Promise<Kept>;
  /** Only these are wanted; others are dropped unread. Absent: all. */
  readonly wanted?: ReadonlySet<EventId>;
  /** Bytes of events that may wait for their auth events in any case, whatever else waits in this process. */
  readonly roomToWait?: number;
}

export interface OutlierIntakeResult {
  readonly kept: number;
  /** The first {@link MAX_DROPPED}. */
  readonly dropped: readonly DroppedPdu[];
  /** Events that could not be judged for want of these. */
  readonly missingAuthEvents: ReadonlySet<EventId>;
  readonly undecided: readonly EventId[];
  /** The first {@link MAX_LET_GO} that were let go, since there was no room for more to wait: nothing is wrong with them. */
  readonly letGo: ReadonlySet<EventId>;
}

/** Told what became of a PDU by check 1: the event, its other checks still to come; undefined: none can be read. */
export type OnRead = (event: Event | undefined) => void;

export interface OutlierIntake {
  /** Takes one PDU of a long answer; a promise is the answer's back-pressure. */
  add(pdu: JsonValue, onRead?: OnRead): Promise<void> | undefined;
  /** Handles what was added so far and reports the whole; more may be added afterwards. */
  settle(): Promise<OutlierIntakeResult>;
  /**
   * To be called in any case, also when the answer broke off: what waits takes room from other answers. Nothing is handed
   * on afterwards.
   */
  end(): Promise<void>;
}

interface AddedPdu {
  readonly pdu: JsonValue;
  readonly onRead: OnRead | undefined;
}

/**
 * Takes in events that come in bulk and in any order (of `/send_join`, `/state`, `/event`): checks 1 to 3, then check 4
 * as soon as an event's auth events are there, then hands them on chunk by chunk. Memory is bounded.
 */
export function createOutlierIntake(ctx: RoomsContext, options: OutlierIntakeOptions): OutlierIntake {
  const { roomId, rules, wanted } = options;
  const dropped: DroppedPdu[] = [];
  const judge = judgeInTurn(ctx, options);
  let buffer: AddedPdu[] = [];
  let weight = 0;
  let verified: Promise<unknown> = Promise.resolve();
  let judged: Promise<unknown> = Promise.resolve();
  let judgedBefore: Promise<unknown> = Promise.resolve();

  function drop(more: readonly DroppedPdu[]): void {
    dropped.push(...more.slice(0, MAX_DROPPED - dropped.length));
  }

  async function verify(added: readonly AddedPdu[]): Promise<readonly Event[]> {
    const pdus = added.map(({ pdu }) => pdu);
    const onRead = (event: Event | undefined, index: number): void => added[index]?.onRead?.(event);
    const only = wanted === undefined ? {} : { wanted };
    const result = await verifyPdus(ctx, { roomId, rules, pdus, onRead, ...only });
    drop(result.dropped);
    return result.events;
  }

  /**
   * Has the chunk verified behind those before it, and then judged behind those. While one is read another is verified,
   * a third judged and a fourth stored, and no more than that.
   */
  function handOn(): void {
    const added = buffer;
    buffer = [];
    weight = 0;
    const events = Promise.all([verified, judgedBefore]).then(() => verify(added));
    const taken = Promise.all([events, judged]).then(([some]) => judge.take(some));
    [verified, judged, judgedBefore] = [events, taken, judged];
    noticedByNext(events, taken);
  }

  return {
    add(pdu, onRead) {
      buffer.push({ pdu, onRead });
      weight += jsonWeight(pdu);
      if (buffer.length < CHUNK && weight < MAX_CHUNK_WEIGHT) return undefined;
      const before = verified.then(() => undefined);
      handOn();
      return before;
    },
    settle() {
      handOn();
      const settled = judged.then(async () => {
        const { rings, ...result } = await judge.settle();
        drop(rings.map((eventId) => ({ kind: "ring", eventId, reason: RING })));
        return { ...result, dropped };
      });
      judged = settled;
      noticedByNext(settled);
      return settled;
    },
    end: () => judge.end(Promise.allSettled([verified, judged])),
  };
}

/** Of a failure whoever adds next, or settles, is told. */
function noticedByNext(...works: readonly Promise<unknown>[]): void {
  for (const work of works) work.catch(() => undefined);
}

/** Possible only where senders choose ids. */
const RING = "it authorizes itself by way of other events, or builds on one that does";

interface JudgeInTurn {
  /** Events that passed checks 1 to 3. */
  take(events: readonly Event[]): Promise<void>;
  settle(): Promise<Omit<OutlierIntakeResult, "dropped"> & { readonly rings: readonly EventId[] }>;
  /** Lets go what waits; settles when what is under way has ended too, and what it has made to be stored. */
  end(underWay: Promise<unknown>): Promise<void>;
}

/** Check 4: an event that lacks auth events waits for them, and is judged when the last one of them has been. */
function judgeInTurn(ctx: RoomsContext, { roomId, rules, keep, roomToWait }: OutlierIntakeOptions): JudgeInTurn {
  const { pool } = ctx.database;
  const known = createKnownOutliers();
  const waiting = createWaitingOutliers(roomId, roomToWait);
  const letGo = new Set<EventId>();
  let kept = 0;
  let storing: Promise<void> = Promise.resolve();

  async function judge(events: readonly Event[], texts: ReadonlyMap<EventId, string>): Promise<void> {
    const { authorized, undecided } = await authorizeOutliers(pool, rules, events, known.lookUp());
    for (const { event, absent } of undecided) {
      if (waiting.hold(event, absent)) letGo.delete(event.eventId);
      else if (letGo.size < MAX_LET_GO) letGo.add(event.eventId);
    }
    for (const { event } of authorized) letGo.delete(event.eventId);
    waiting.arrived(authorized.map(({ event }) => event.eventId));
    kept += authorized.length;
    await storing;
    // While it is stored the next chunk is checked, by what is held of this one.
    known.hold(authorized.map(({ event }) => event));
    storing = keep(authorized.map((one) => withText(one, texts))).then((where) => {
      if (where === "stored") known.stored();
    });
    storing.catch(() => undefined);
  }

  async function judgeWhatIsReady(): Promise<void> {
    for (let ready = takeReady(); ready.length > 0; ready = takeReady()) {
      const texts = new Map(ready.map(({ event, pduText }) => [event.eventId, pduText]));
      await judge(
        ready.map(({ event }) => event),
        texts,
      );
    }
  }

  const takeReady = (): readonly EventWithText[] => waiting.takeReady(CHUNK, MAX_CHUNK_WEIGHT);

  return {
    async take(events) {
      await judge(
        events.filter(({ eventId }) => !waiting.has(eventId)),
        NO_TEXTS,
      );
      await judgeWhatIsReady();
    },
    async settle() {
      // Somebody else may have stored what was missing when it was asked for.
      waiting.arrived(await whichExist(pool, [...waiting.missing()]));
      await judgeWhatIsReady();
      await storing;
      const { rings, undecided, missing: missingAuthEvents } = waiting.stillWaiting();
      return { kept, rings, undecided, missingAuthEvents, letGo };
    },
    async end(underWay) {
      waiting.end();
      // Why one of them failed was told to whoever added or settled.
      await underWay.catch(() => undefined);
      await storing.catch(() => undefined);
    },
  };
}

const NO_TEXTS: ReadonlyMap<EventId, string> = new Map();

function withText(one: AuthorizedOutlier, texts: ReadonlyMap<EventId, string>): TakenOutlier {
  const pduText = texts.get(one.event.eventId);
  return pduText === undefined ? one : { ...one, pduText };
}
