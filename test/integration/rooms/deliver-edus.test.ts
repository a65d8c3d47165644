import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { RoomId, ServerName } from "../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { startOutboxDelivery } from "../../../src/rooms/send/deliver-outbox.ts";
import { transaction } from "../../../src/storage/database.ts";
import { listBackOffs, storeBackOff } from "../../../src/storage/destinations.ts";
import { addEdusToOutbox } from "../../../src/storage/outbox-edus.ts";
import { addToOutbox, outboxDestinations } from "../../../src/storage/outbox.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext } from "../../support/loopback-federation.ts";
import { aStoredRoom, anEvent, storeInTimeline } from "../../support/stored-room.ts";
import { aClient, answering, startServer } from "../federation-client/loopback-server.ts";
import type { Handler, LoopbackServer } from "../federation-client/loopback-server.ts";

const database = await openTestDatabase();
const ok = answering({ pdus: {} });

beforeEach(async () => {
  await database.pool.query("DELETE FROM outbox; DELETE FROM outbox_edus; DELETE FROM destinations");
});

interface Sent {
  readonly txnId: string;
  readonly pdus: readonly string[];
  /** The number in each one's content. */
  readonly edus: readonly number[];
}

/** What a server was sent, in order. */
function sentTo(server: LoopbackServer): readonly Sent[] {
  return server.seen.map(({ url, body }) => {
    const sent = JSON.parse(body) as {
      readonly pdus: readonly { readonly content: { readonly body: string } }[];
      readonly edus?: readonly { readonly edu_type: string; readonly content: { readonly n: number } }[];
    };
    return {
      txnId: url.slice(url.lastIndexOf("/") + 1),
      pdus: sent.pdus.map(({ content }) => content.body),
      edus: (sent.edus ?? []).map(({ content }) => content.n),
    };
  });
}

interface Entry {
  readonly n: number;
  readonly replaces?: string;
  readonly eduType?: string;
}

async function queue(destinations: readonly ServerName[], ...entries: readonly Entry[]): Promise<void> {
  await transaction(database, async (tx) => {
    const edus = entries.map(({ n, eduType = "m.test", ...more }) => ({
      destinations,
      eduType,
      content: { n },
      ...(more.replaces === undefined ? {} : { replaces: more.replaces }),
    }));
    await addEdusToOutbox(tx, { edus });
  });
}

let events = 0;

async function queueEvent(roomId: RoomId, body: string, destination: ServerName): Promise<void> {
  events += 1;
  const event = anEvent(roomId, `$edus${events}`, { content: { body } });
  const streamId = await storeInTimeline(database, event);
  await addToOutbox(database.pool, { eventId: event.eventId, streamId, destinations: [destination] });
}

function aContext(): RoomsContext {
  return aRoomsContext(database, { federation: aClient(database) });
}

function deliver(ctx: RoomsContext = aContext()): void {
  const delivery = startOutboxDelivery(ctx);
  onTestFinished(() => delivery.stop());
}

async function untilAllIsSent(): Promise<void> {
  await expect.poll(() => outboxDestinations(database.pool)).toEqual([]);
}

const numbers = (from: number, count: number): readonly number[] => Array.from({ length: count }, (_, n) => from + n);

describe("EDUs in the outbox", () => {
  it("go with the events, 100 a transaction, in their order", async () => {
    const server = await startServer(ok);
    await queueEvent(await aStoredRoom(database), "hello", server.name);
    await queue([server.name], ...numbers(0, 230).map((n) => ({ n })));
    deliver();
    await untilAllIsSent();
    const sent = sentTo(server);
    expect(sent.map(({ pdus }) => pdus)).toEqual([["hello"], [], []]);
    expect(sent.map(({ edus }) => edus.length)).toEqual([100, 100, 30]);
    expect(sent.flatMap(({ edus }) => edus)).toEqual(numbers(0, 230));
    expect(new Set(sent.map(({ txnId }) => txnId)).size).toBe(3);
  });

  it("wake the delivery when they are written", async () => {
    const server = await startServer(ok);
    deliver();
    for (const n of [1, 2]) {
      await queue([server.name], { n });
      await untilAllIsSent();
    }
    expect(sentTo(server).flatMap(({ edus }) => edus)).toEqual([1, 2]);
  });

  it("are repeated with the events of their transaction, under its id, and nothing is added or replaced", async () => {
    const roomId = await aStoredRoom(database);
    const handlers: Handler[] = [answering({}, 500), answering("lost in transit")];
    const server = await startServer((request, response) => (handlers.shift() ?? ok)(request, response));
    const ctx = aContext();
    await queueEvent(roomId, "first", server.name);
    await queue([server.name], { n: 1, replaces: "presence" }, { n: 2 });
    deliver(ctx);
    await expect.poll(() => server.seen.length).toBe(1);
    await queue([server.name], { n: 3, replaces: "presence" });
    await queueEvent(roomId, "second", server.name);
    for (const attempts of [2, 3]) {
      await expect.poll(async () => (await listBackOffs(database.pool)).length).toBe(1);
      await ctx.federation.noteServerAlive(server.name);
      await expect.poll(() => server.seen.length).toBeGreaterThanOrEqual(attempts);
    }
    await untilAllIsSent();
    const [first, second, third, fourth] = sentTo(server);
    expect(first).toMatchObject({ pdus: ["first"], edus: [1, 2] });
    expect(second).toEqual(first);
    expect(third).toEqual(first);
    expect(fourth).toMatchObject({ pdus: ["second"], edus: [3] });
    expect(fourth?.txnId).not.toBe(first?.txnId);
  });

  it("are repeated where the process that had begun is no more", async () => {
    const server = await startServer(ok);
    await queue([server.name], { n: 1 });
    await database.pool.query("UPDATE outbox_edus SET txn_id = 'begun-before'");
    await queue([server.name], { n: 2 });
    deliver();
    await untilAllIsSent();
    expect(sentTo(server)).toMatchObject([{ txnId: "begun-before", edus: [1] }, { edus: [2] }]);
  });

  it("are replaced by newer ones of their key, in their place, for each server by itself", async () => {
    const [one, two] = [await startServer(ok), await startServer(ok)];
    await queue([one.name, two.name], { n: 1, replaces: "presence" }, { n: 2 });
    await queue([one.name], { n: 3, replaces: "presence" }, { n: 4, replaces: "typing" });
    deliver();
    await untilAllIsSent();
    expect(sentTo(one).flatMap(({ edus }) => edus)).toEqual([3, 2, 4]);
    expect(sentTo(two).flatMap(({ edus }) => edus)).toEqual([1, 2]);
  });

  it("are dropped for a server that has failed for a day, but for those to devices and of devices", async () => {
    const server = await startServer(ok);
    const types = ["m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update"];
    await queue([server.name], ...types.map((eduType, n) => ({ n, eduType })));
    const failingSince = Date.now() - 25 * 60 * 60_000;
    const backOff = { serverName: server.name, failingSince, retryIntervalMs: 1000, lastError: "away" };
    await storeBackOff(database.pool, { ...backOff, retryAt: Date.now() - 1 });
    deliver();
    await untilAllIsSent();
    expect(sentTo(server).flatMap(({ edus }) => edus)).toEqual([3, 4]);
  });
});
