import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { EventId, RoomId, ServerName } from "../../../src/matrix/identifiers.ts";
import { startOutboxDelivery } from "../../../src/rooms/send/deliver-outbox.ts";
import type { OutboxDelivery, OutboxDeliveryOptions } from "../../../src/rooms/send/deliver-outbox.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { transaction } from "../../../src/storage/database.ts";
import { openDestinationLocks } from "../../../src/storage/destination-locks.ts";
import { listBackOffs, storeBackOff } from "../../../src/storage/destinations.ts";
import { insertTimelineEvent } from "../../../src/storage/events.ts";
import { addToOutbox } from "../../../src/storage/outbox.ts";
import { takeStreamPositions } from "../../../src/storage/streams.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext } from "../../support/loopback-federation.ts";
import { anEvent, aStoredRoom } from "../../support/stored-room.ts";
import { aClient, answering, startServer } from "../federation-client/loopback-server.ts";
import type { Handler, LoopbackServer } from "../federation-client/loopback-server.ts";

const database = await openTestDatabase();
const ok = answering({ pdus: {} });

beforeEach(async () => {
  await database.pool.query("DELETE FROM outbox; DELETE FROM destinations");
});

interface Sent {
  readonly txnId: string;
  readonly bodies: readonly string[];
}

/** What a server was sent, in order. */
function sentTo(server: LoopbackServer): readonly Sent[] {
  return server.seen.map(({ url, body }) => {
    const { pdus } = JSON.parse(body) as { pdus: readonly { content: { body: string } }[] };
    return { txnId: url.slice(url.lastIndexOf("/") + 1), bodies: pdus.map(({ content }) => content.body) };
  });
}

let events = 0;

/** Stores an event of ours and puts it on the lists, in one transaction, as createEvent does. */
async function post(roomId: RoomId, body: string, ...destinations: readonly ServerName[]): Promise<EventId> {
  const event = anEvent(roomId, `$outbox${++events}`, { content: { body } });
  await transaction(database, async (tx) => {
    const streamId = await takeStreamPositions(tx, 1);
    const verdict = { rejection: null, softFailed: false, stateBefore: null, stateAfter: null };
    await insertTimelineEvent(tx, { event, streamId, ...verdict });
    await addToOutbox(tx, { eventId: event.eventId, streamId, destinations });
  });
  return event.eventId;
}

function aContext(): RoomsContext {
  return aRoomsContext(database, { federation: aClient(database) });
}

function deliver(ctx: RoomsContext, options?: OutboxDeliveryOptions): OutboxDelivery {
  const delivery = startOutboxDelivery(ctx, options);
  onTestFinished(() => delivery.stop());
  return delivery;
}

async function lengthOfList(server: ServerName): Promise<number | null> {
  return (await database.pool.query("SELECT FROM outbox WHERE destination = $1", [server])).rowCount;
}

async function expectEmptyList(server: ServerName): Promise<void> {
  await expect.poll(() => lengthOfList(server)).toBe(0);
}

async function failingServers(): Promise<readonly string[]> {
  return (await listBackOffs(database.pool)).map(({ serverName }) => serverName);
}

describe("startOutboxDelivery", () => {
  it("sends what is on the list in its order, 50 events a transaction, each under an id of its own", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(ok);
    const bodies = Array.from({ length: 120 }, (_, n) => `message ${n}`);
    for (const body of bodies) await post(roomId, body, server.name);
    deliver(aContext());
    await expectEmptyList(server.name);
    const sent = sentTo(server);
    expect(sent.map((transaction) => transaction.bodies.length)).toEqual([50, 50, 20]);
    expect(sent.flatMap((transaction) => transaction.bodies)).toEqual(bodies);
    expect(new Set(sent.map(({ txnId }) => txnId)).size).toBe(3);
  });

  it("sends what comes later at once", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(ok);
    deliver(aContext());
    await sleep(200);
    for (const body of ["one", "two"]) {
      await post(roomId, body, server.name);
      await expectEmptyList(server.name);
    }
    expect(sentTo(server).flatMap(({ bodies }) => bodies)).toEqual(["one", "two"]);
  });

  it("repeats a transaction that was not acknowledged under its id, with its events, before any other", async () => {
    const roomId = await aStoredRoom(database);
    const handlers: Handler[] = [answering({}, 500), answering("lost in transit")];
    const server = await startServer((request, response) => (handlers.shift() ?? ok)(request, response));
    const ctx = aContext();
    await post(roomId, "first", server.name);
    deliver(ctx);
    await expect.poll(() => server.seen.length).toBe(1);
    await post(roomId, "second", server.name);
    await sleep(200);
    expect(server.seen.length).toBe(1);
    for (const attempts of [2, 3]) {
      await expect.poll(failingServers).toEqual([server.name]);
      await ctx.federation.noteServerAlive(server.name);
      await expect.poll(() => server.seen.length).toBeGreaterThanOrEqual(attempts);
    }
    await expectEmptyList(server.name);
    const [first, second, third, fourth] = sentTo(server);
    expect(first?.bodies).toEqual(["first"]);
    expect(second).toEqual(first);
    expect(third).toEqual(first);
    expect(fourth?.bodies).toEqual(["second"]);
    expect(fourth?.txnId).not.toBe(first?.txnId);
  });

  it("repeats what a process had begun that is no more", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(ok);
    await post(roomId, "begun", server.name);
    await database.pool.query("UPDATE outbox SET txn_id = 'begun-before'");
    await post(roomId, "new", server.name);
    deliver(aContext());
    await expectEmptyList(server.name);
    expect(sentTo(server)).toMatchObject([{ txnId: "begun-before", bodies: ["begun"] }, { bodies: ["new"] }]);
  });

  it("lets a server that fails wait alone, and notes so in the database", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(ok);
    await post(roomId, "hello", "dead.example:1", server.name);
    deliver(aContext());
    await expectEmptyList(server.name);
    await expect.poll(failingServers).toEqual(["dead.example:1"]);
    expect(await lengthOfList("dead.example:1")).toBe(1);
  });

  it("keeps a refused transaction, and does not ask the server over and over", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(answering({ errcode: "M_UNAUTHORIZED" }, 401));
    await post(roomId, "hello", server.name);
    deliver(aContext());
    await expect.poll(() => server.seen.length).toBe(1);
    await sleep(400);
    expect(server.seen.length).toBe(1);
    expect(await lengthOfList(server.name)).toBe(1);
  });

  it("leaves no server alone for an hour because the clock was set back by one", async () => {
    const roomId = await aStoredRoom(database);
    const [server, other] = [await startServer(ok), await startServer(ok)];
    const locks = openDestinationLocks(database);
    const unlock = await locks.tryLock(server.name);
    let aheadMs = 60 * 60_000;
    await post(roomId, "hello", server.name, other.name);
    deliver({ ...aContext(), now: () => Date.now() + aheadMs });
    // By then it has found that another process sends to the first.
    await expect.poll(() => other.seen.length).toBe(1);
    await expectEmptyList(other.name);
    aheadMs = 0;
    await unlock?.();
    await locks.close();
    await post(roomId, "and again", other.name);
    await expectEmptyList(server.name);
  });

  it("leaves no server alone by a back-off that was written while the clock was an hour ahead", async () => {
    const roomId = await aStoredRoom(database);
    const server = await startServer(ok);
    const ahead = Date.now() + 60 * 60_000;
    const backOff = { failingSince: ahead, retryAt: ahead + 30_000, retryIntervalMs: 30_000, lastError: "away" };
    await storeBackOff(database.pool, { serverName: server.name, ...backOff });
    await post(roomId, "hello", server.name);
    deliver(aContext());
    await expectEmptyList(server.name);
  });

  it("sends to a server from one process at a time, and nothing twice", async () => {
    const roomId = await aStoredRoom(database);
    let underWay = 0;
    let most = 0;
    const server = await startServer(async (request, response) => {
      most = Math.max(most, ++underWay);
      await sleep(30);
      underWay--;
      await ok(request, response);
    });
    deliver(aContext());
    deliver(aContext());
    const bodies = Array.from({ length: 20 }, (_, n) => `message ${n}`);
    for (const body of bodies) await post(roomId, body, server.name);
    await expectEmptyList(server.name);
    expect(most).toBe(1);
    expect(sentTo(server).flatMap((transaction) => transaction.bodies)).toEqual(bodies);
  });

  it("sends to no more servers at a time than it may", async () => {
    const roomId = await aStoredRoom(database);
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const server = await startServer(async (request, response) => {
      await gate;
      await ok(request, response);
    });
    const names = Array.from({ length: 8 }, (_, n) => `s${n}.example:${server.port}`);
    await post(roomId, "hello", ...names);
    deliver(aContext(), { destinationsAtOnce: 3 });
    await expect.poll(() => server.seen.length).toBe(3);
    await sleep(300);
    expect(server.seen.length).toBe(3);
    open();
    for (const name of names) await expectEmptyList(name);
  });

  it("waits for answers when it stops, for a while, and begins nothing new", async () => {
    const roomId = await aStoredRoom(database);
    let open: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const slow = await startServer(async (request, response) => {
      await gate;
      await ok(request, response);
    });
    const silent = await startServer(() => undefined);
    for (let n = 0; n < 60; n++) await post(roomId, `message ${n}`, slow.name, silent.name);
    const delivery = deliver(aContext(), { drainMs: 3_000 });
    await expect.poll(() => slow.seen.length + silent.seen.length).toBe(2);
    const stopping = delivery.stop();
    open();
    await stopping;
    expect(await lengthOfList(slow.name)).toBe(10);
    expect(await lengthOfList(silent.name)).toBe(60);
    expect(await failingServers()).toEqual([]);
  });

  it("sends the newest event of each room alone to a server that has failed for a day", async () => {
    const [one, two] = [await aStoredRoom(database), await aStoredRoom(database)];
    const server = await startServer(ok);
    await post(one, "old news", server.name);
    await post(two, "of the other room", server.name);
    await post(one, "newest", server.name);
    const failingSince = Date.now() - 25 * 60 * 60_000;
    const backOff = { serverName: server.name, failingSince, retryIntervalMs: 1000, lastError: "away" };
    await storeBackOff(database.pool, { ...backOff, retryAt: Date.now() - 1 });
    deliver(aContext());
    await expectEmptyList(server.name);
    expect(sentTo(server).map(({ bodies }) => bodies)).toEqual([["of the other room", "newest"]]);
  });
});
