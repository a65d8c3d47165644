import { setTimeout as delay } from "node:timers/promises";
import type pg from "pg";
import type { ChatClient } from "../demo/chat-client.ts";
import type { EventId, RoomId, UserId } from "../src/matrix/identifiers.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import type { Product } from "./products.ts";

/** What goes on in a room while its resync runs. */
export interface Meanwhile<Found> {
  /** To be called when the room is whole. */
  ended(): Promise<Found>;
}

export interface RoomJoined {
  readonly product: Product;
  readonly client: ChatClient;
  readonly resident: ResidentProcess;
  readonly database: pg.Client;
  readonly roomId: RoomId;
  readonly founder: UserId;
}

/** Messages of another server. */
export interface ReceivedMeanwhile {
  /** Seconds from the return of the join until the last of them was in the timeline. */
  readonly caughtUp: number;
  /** How many came at all. */
  readonly received: number;
}

export const MESSAGES = 200;
/** As many as a transaction holds. */
const TRANSACTION = 50;
const LOOK_EVERY_MS = 50;
/** What has not come by then is lost. */
const NO_MORE_AFTER_MS = 30_000;

/** Has the resident send {@link MESSAGES} messages at once, one built on the other, in full transactions. */
export function receiveMeanwhile(room: RoomJoined): Meanwhile<ReceivedMeanwhile> {
  const from = performance.now();
  const sent = sendFromResident(room);
  // It is awaited in the end; until then nobody would take the failure.
  sent.catch(() => undefined);
  return {
    async ended() {
      const received = await untilReceived(room, await sent);
      return { caughtUp: (received.at - from) / 1000, received: received.count };
    },
  };
}

async function sendFromResident({ product, resident, roomId, founder }: RoomJoined): Promise<readonly EventId[]> {
  const eventIds: EventId[] = [];
  for (let start = 0; start < MESSAGES; start += TRANSACTION) {
    const pdus = [];
    for (let index = 0; index < TRANSACTION; index += 1) {
      const { eventId, event } = await resident.call("sendMessage", roomId, founder, "meanwhile", { push: false });
      eventIds.push(eventId);
      pdus.push(event.pdu);
    }
    await resident.call("sendPdus", roomId, pdus, { to: [product.serverName] });
  }
  return eventIds;
}

/** Both products have a table of this name, and a column that tells events of the timeline from others. */
const RECEIVED = {
  name: "received meanwhile",
  text: "SELECT count(*)::integer AS count FROM events WHERE event_id = ANY ($1::text[]) AND NOT outlier",
};

async function untilReceived(
  { database }: RoomJoined,
  eventIds: readonly EventId[],
): Promise<{ readonly count: number; readonly at: number }> {
  let [count, at] = [0, performance.now()];
  while (count < eventIds.length && performance.now() - at < NO_MORE_AFTER_MS) {
    const { rows } = await database.query<{ count: number }>({ ...RECEIVED, values: [eventIds] });
    const now = rows[0]?.count ?? 0;
    if (now > count) [count, at] = [now, performance.now()];
    if (now < eventIds.length) await delay(LOOK_EVERY_MS);
  }
  return { count, at };
}

/** What a client of the product waited for its messages, in milliseconds. */
export interface SentMeanwhile {
  readonly sent: number;
  readonly p50: number;
  readonly p99: number;
  readonly longest: number;
}

const SEND_EVERY_MS = 100;
/** Of a product that has come to a standstill no more is asked. */
const MOST_WAITING = 50;

/**
 * Has the client send a message every {@link SEND_EVERY_MS}, whether or not the one before is answered: so a time in
 * which nothing is answered counts with all of the messages that fall into it.
 */
export function sendMeanwhile({ client, roomId }: RoomJoined): Meanwhile<SentMeanwhile> {
  const waits: Promise<number>[] = [];
  let waiting = 0;
  const say = async (): Promise<number> => {
    waiting += 1;
    const from = performance.now();
    await client.say(roomId, "meanwhile");
    waiting -= 1;
    return performance.now() - from;
  };
  const timer = setInterval(() => {
    if (waiting >= MOST_WAITING) return;
    const wait = say();
    wait.catch(() => undefined);
    waits.push(wait);
  }, SEND_EVERY_MS);
  return {
    async ended() {
      clearInterval(timer);
      const sorted = (await Promise.all(waits)).toSorted((a, b) => a - b);
      const at = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN;
      return { sent: sorted.length, p50: at(0.5), p99: at(0.99), longest: at(1) };
    },
  };
}
