import { setTimeout as delay } from "node:timers/promises";
import pg from "pg";
import type { ChatClient } from "../demo/chat-client.ts";
import type { EventId, RoomId, UserId } from "../src/matrix/identifiers.ts";
import type { ResidentProcess } from "../test/resident/spawn-resident.ts";
import { isPartial, patienceMs, untilWhole } from "./measure-join.ts";
import type { Product, ProductName } from "./products.ts";

/** Messages received per second in one room, from the first transaction until the last message is in the timeline. */
export interface ReceivingFigures {
  readonly product: ProductName;
  readonly members: number;
  /** Each message builds on the last. */
  readonly partialLine: number;
  readonly fullLine: number;
  /** Two servers that don't hear each other: each message builds on the last but one. */
  readonly partialFork: number;
  readonly fullFork: number;
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
/** The resident answers no sooner what the resync asks first: until then the room stays partial, and the product idle. */
const PARTIAL_FOR_MS = 40_000;
const LOOK_EVERY_MS = 5;

/**
 * Joins a room of its own and receives the same number of messages twice: while the state is partial, and after the
 * resync.
 *
 * @throws Error if the room is not partial in the first half
 */
export async function measureReceiving(receiving: Receiving): Promise<ReceivingFigures> {
  const { product, client, resident, members } = receiving;
  const { roomId, founder } = await resident.call("hostRoom", {
    members: members - 1,
    servers: 50,
    label: `receiving, ${product.name}`,
  });
  const database = new pg.Client({ connectionString: product.databaseUrl });
  // A connection that is lost fails the next query.
  database.on("error", () => undefined);
  await database.connect();
  try {
    await resident.call("trouble", { kind: "slow", delayMs: PARTIAL_FOR_MS, at: "state_ids" });
    await client.join(roomId, resident.serverNames[0] ?? "");
    const room = { ...receiving, database, roomId, founder };
    await receive(room, 1, TRANSACTION);
    const partialLine = await receive(room, 1, MESSAGES);
    const partialFork = await receive(room, 2, MESSAGES);
    if (!(await isPartial(database, roomId))) throw new Error(`the room of ${product.name} was partial too shortly`);
    await resident.call("clearTrouble");
    await untilWhole(product, { database, roomId, patienceMs: PARTIAL_FOR_MS + patienceMs(members) });
    await receive(room, 1, TRANSACTION);
    const fullLine = await receive(room, 1, MESSAGES);
    const fullFork = await receive(room, 2, MESSAGES);
    return { product: product.name, members, partialLine, fullLine, partialFork, fullFork };
  } finally {
    await database.end();
  }
}

interface ReceivingRoom extends Receiving {
  readonly database: pg.Client;
  readonly roomId: RoomId;
  readonly founder: UserId;
}

/** So many messages per second, of as many chains side by side. */
async function receive(room: ReceivingRoom, chains: number, count: number): Promise<number> {
  const eventIds = await composeMessages(room, chains, count);
  const { resident, product, roomId } = room;
  const from = performance.now();
  for (let start = 0; start < eventIds.length; start += TRANSACTION) {
    const sending = { to: [product.serverName] };
    const batch = eventIds.slice(start, start + TRANSACTION);
    const [result] = await resident.call("deliver", roomId, batch, sending);
    if (result === undefined || !("status" in result) || result.status !== 200) {
      throw new Error(`${product.name} did not take a transaction: ${JSON.stringify(result)}`);
    }
    // Synapse drops events of which more than a hundred wait.
    for (const eventId of batch.slice(-chains)) await untilInTimeline(room, eventId);
  }
  return count / ((performance.now() - from) / 1000);
}

/** Made before the clock runs, and told to nobody yet. */
async function composeMessages(room: ReceivingRoom, chains: number, count: number): Promise<readonly EventId[]> {
  const { resident, roomId, founder } = room;
  const { eventId: start } = await resident.call("sendMessage", roomId, founder, "from here on", {
    to: [room.product.serverName],
  });
  const eventIds: EventId[] = [];
  for (let index = 0; index < count; index += 1) {
    const prevEvents = [eventIds[index - chains] ?? start];
    const sending = { push: false, prevEvents };
    eventIds.push((await resident.call("sendMessage", roomId, founder, `message ${index}`, sending)).eventId);
  }
  return eventIds;
}

/** Both products have a table of this name, and a column that tells events of the timeline from others. */
const IN_TIMELINE = { name: "in timeline", text: "SELECT 1 FROM events WHERE event_id = $1 AND NOT outlier" };

/** Synapse acknowledges a transaction before it has handled its events. */
async function untilInTimeline({ database, product }: ReceivingRoom, eventId: EventId): Promise<void> {
  const until = performance.now() + patienceMs(MESSAGES);
  while ((await database.query({ ...IN_TIMELINE, values: [eventId] })).rowCount === 0) {
    if (performance.now() > until) throw new Error(`${product.name} has not received ${eventId}`);
    await delay(LOOK_EVERY_MS);
  }
}

/** A Markdown table, and how much a room that is partial costs beside a full one. */
export function receivingTable(figures: readonly ReceivingFigures[]): string {
  const lines = [
    "| members |  | line, partial | line, full | partial : full | two branches, partial | two branches, full | partial : full |",
    "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
  ];
  for (const { product, members, partialLine, fullLine, partialFork, fullFork } of figures) {
    const pair = (partial: number, full: number): string =>
      `${partial.toFixed(0)} | ${full.toFixed(0)} | ${(partial / full).toFixed(2)}`;
    lines.push(
      `| ${members.toLocaleString("en-US")} | ${product} | ${pair(partialLine, fullLine)} | ${pair(partialFork, fullFork)} |`,
    );
  }
  return lines.join("\n");
}
