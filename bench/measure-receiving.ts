import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { ChatClient } from "../demo/chat-client.ts";
import type { EventId, RoomId, UserId } from "../src/matrix/identifiers.ts";
import type { JsonValue } from "../src/matrix/json.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { isPartial, patienceMs, untilWhole } from "./measure-join.ts";
import type { Product, ProductName } from "./products.ts";

/** Messages received per second, from the first transaction until the last message is in the timeline. */
export interface ReceivingFigures {
  readonly product: ProductName;
  /** Of the one room. */
  readonly members: number;
  /** One room, in which each message builds on the last. */
  readonly line: Rates;
  /** One room, and two servers that don't hear each other: each message builds on the last but one. */
  readonly fork: Rates;
  /** Two hundred rooms, each message in another one than the last. */
  readonly rooms: Rates;
}

interface Rates {
  readonly partial: number;
  readonly full: number;
}

export interface Receiving {
  readonly product: Product;
  readonly client: ChatClient;
  readonly resident: ResidentProcess;
  readonly members: number;
}

/** As many as a transaction holds. */
const TRANSACTION = 50;
const MESSAGES = 500;
const ROOMS = 200;
const MEMBERS_OF_EACH = 20;
const JOINS_AT_ONCE = 4;
const LOOK_EVERY_MS = 5;

/**
 * Joins rooms of its own and receives the same number of messages twice: while their state is partial, and after the
 * resync.
 *
 * @throws Error if a room is not partial in the first half
 */
export async function measureReceiving(receiving: Receiving): Promise<ReceivingFigures> {
  const { product, resident, members } = receiving;
  const database = new pg.Client({ connectionString: product.databaseUrl });
  // A connection that is lost fails the next query.
  database.on("error", () => undefined);
  await database.connect();
  const field: Field = { ...receiving, database };
  try {
    // What the resync asks first has no answer: until then the rooms stay partial, and the product idle.
    await resident.call("trouble", { kind: "hold", at: "state_ids" });
    const one = [await joinNewRoom(field, members, 0)];
    const many = await joinNewRooms(field);
    const partial = await receiveEverywhere(field, one, many);
    for (const { roomId } of [...one, ...many]) {
      if (!(await isPartial(database, roomId))) throw new Error(`a room of ${product.name} was partial too shortly`);
    }
    await resident.call("clearTrouble");
    const patience = patienceMs(members + ROOMS * MEMBERS_OF_EACH);
    for (const { roomId } of [...one, ...many]) await untilWhole(product, { database, roomId, patienceMs: patience });
    const full = await receiveEverywhere(field, one, many);
    const rates = (part: keyof Received): Rates => ({ partial: partial[part], full: full[part] });
    return { product: product.name, members, line: rates("line"), fork: rates("fork"), rooms: rates("rooms") };
  } finally {
    await resident.call("clearTrouble");
    await database.end();
  }
}

interface Field extends Receiving {
  readonly database: pg.Client;
}

interface Room {
  readonly roomId: RoomId;
  /** Who may speak in it. */
  readonly founder: UserId;
}

async function joinNewRoom({ product, client, resident }: Field, members: number, index: number): Promise<Room> {
  const label = `receiving ${index}, ${product.name}`;
  const parameters = { members: members - 1, servers: Math.min(50, members), label };
  const { roomId, founder } = await resident.call("hostRoom", parameters);
  await client.join(roomId, resident.serverNames[0] ?? "");
  return { roomId, founder };
}

async function joinNewRooms(field: Field): Promise<readonly Room[]> {
  const rooms: Room[] = [];
  for (let start = 1; start <= ROOMS; start += JOINS_AT_ONCE) {
    const some = Array.from({ length: JOINS_AT_ONCE }, (_, index) => start + index);
    rooms.push(...(await Promise.all(some.map((index) => joinNewRoom(field, MEMBERS_OF_EACH, index)))));
  }
  return rooms;
}

type Received = Readonly<Record<"line" | "fork" | "rooms", number>>;

async function receiveEverywhere(field: Field, one: readonly Room[], many: readonly Room[]): Promise<Received> {
  // Code is compiled and the state of the rooms at hand before anything is measured.
  await receive(field, { rooms: one, chains: 1, count: TRANSACTION });
  const line = await receive(field, { rooms: one, chains: 1, count: MESSAGES });
  const fork = await receive(field, { rooms: one, chains: 2, count: MESSAGES });
  await receive(field, { rooms: many, chains: 1, count: ROOMS });
  const rooms = await receive(field, { rooms: many, chains: 1, count: MESSAGES });
  return { line, fork, rooms };
}

interface Load {
  readonly rooms: readonly Room[];
  /** In each room, side by side. */
  readonly chains: number;
  readonly count: number;
}

/** So many messages per second. */
async function receive(field: Field, load: Load): Promise<number> {
  const messages = await composeMessages(field, load);
  const { resident, product } = field;
  const [anyRoom] = load.rooms;
  if (anyRoom === undefined) throw new Error("there is no room to receive in");
  const from = performance.now();
  for (let start = 0; start < messages.length; start += TRANSACTION) {
    const batch = messages.slice(start, start + TRANSACTION);
    const pdus = batch.map(({ pdu }) => pdu);
    const [result] = await resident.call("sendPdus", anyRoom.roomId, pdus, { to: [product.serverName] });
    if (result === undefined || !("status" in result) || result.status !== 200) {
      throw new Error(`${product.name} did not take a transaction: ${JSON.stringify(result)}`);
    }
    // Synapse answers before it has handled the events, and of those of a room that wait it drops what exceeds a hundred.
    await untilInTimeline(
      field,
      batch.map(({ eventId }) => eventId),
    );
  }
  return load.count / ((performance.now() - from) / 1000);
}

interface Message {
  readonly eventId: EventId;
  readonly pdu: JsonValue;
}

/** Made before the clock runs, and told to nobody yet. */
async function composeMessages(field: Field, { rooms, chains, count }: Load): Promise<readonly Message[]> {
  const starts: EventId[] = [];
  for (const room of rooms) starts.push(await startOf(field, room));
  const messages: Message[] = [];
  for (let index = 0; index < count; index += 1) {
    const place = index % rooms.length;
    const [room, prevEvent] = [rooms[place], messages[index - rooms.length * chains]?.eventId ?? starts[place]];
    if (room !== undefined && prevEvent !== undefined) messages.push(await compose(field, room, [prevEvent]));
  }
  return messages;
}

/** One message that is received before the clock runs, and merges whatever branches the room has. */
async function startOf({ resident, product }: Field, { roomId, founder }: Room): Promise<EventId> {
  const to = [product.serverName];
  const { eventId } = await resident.call("sendMessage", roomId, founder, "from here on", { to });
  return eventId;
}

async function compose(
  { resident }: Field,
  { roomId, founder }: Room,
  prevEvents: readonly EventId[],
): Promise<Message> {
  const sending = { push: false, prevEvents };
  const { eventId, event } = await resident.call("sendMessage", roomId, founder, "a message", sending);
  return { eventId, pdu: event.pdu };
}

/** Both products have a table of this name, and a column that tells events of the timeline from others. */
const IN_TIMELINE = {
  name: "in timeline",
  text: "SELECT count(*)::integer AS count FROM events WHERE event_id = ANY ($1::text[]) AND NOT outlier",
};

/** @throws Error with how many of them have not come when the patience is at its end */
async function untilInTimeline({ database, product }: Field, eventIds: readonly EventId[]): Promise<void> {
  const until = performance.now() + patienceMs(MESSAGES);
  for (;;) {
    const { rows } = await database.query<{ count: number }>({ ...IN_TIMELINE, values: [eventIds] });
    const missing = eventIds.length - (rows[0]?.count ?? 0);
    if (missing === 0) return;
    if (performance.now() > until) throw new Error(`${product.name} has not received ${missing} of its events`);
    await delay(LOOK_EVERY_MS);
  }
}

/** A Markdown table, and how much a room that is partial costs beside a full one. */
export function receivingTable(figures: readonly ReceivingFigures[]): string {
  const lines = [
    "| members |  | line, partial | line, full | partial : full | two branches, partial | two branches, full | partial : full | 200 rooms, partial | 200 rooms, full | partial : full |",
    "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
  ];
  for (const { product, members, line, fork, rooms } of figures) {
    const cells = [line, fork, rooms].map(
      ({ partial, full }) => `${partial.toFixed(0)} | ${full.toFixed(0)} | ${(partial / full).toFixed(2)}`,
    );
    lines.push(`| ${members.toLocaleString("en-US")} | ${product} | ${cells.join(" | ")} |`);
  }
  return lines.join("\n");
}
