import { beforeEach, describe, expect, it } from "vitest";
import type { ApplicationService } from "../../../src/appservice-client/registration.ts";
import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { makeSenders } from "../../../src/rooms/appservices/act-as.ts";
import { createUser } from "../../../src/storage/accounts.ts";
import { countFailingAppservices, loadPushState, storePushBackOff } from "../../../src/storage/appservice-pushes.ts";
import {
  acknowledge,
  appservicesOf,
  aService,
  namespace,
  pushUntilTestEnds,
  refuse,
  startServiceReceiver,
  type ServiceReceiver,
} from "../../support/application-service.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi, type TestClient } from "../../support/loopback-client.ts";
import { startLoopbackFederation } from "../../support/loopback-federation.ts";

const database = await openTestDatabase();
const receiver = await startServiceReceiver();
const bridge = aService({ url: receiver.url });
const api = await startLoopbackClientApi(database, { appservices: appservicesOf(bridge) });
await makeSenders(api.ctx);
const alice = await api.register("alice");
const ghost: UserId = "@_bridge_ghost:us.example";
await createUser(database, ghost);

/** A request of the service as one of its users. */
async function asGhost(method: string, path: string, body: object = {}): Promise<void> {
  const response = await fetch(`${api.url}/_matrix/client/v3/${path}?user_id=${encodeURIComponent(ghost)}`, {
    method,
    headers: { authorization: `Bearer ${bridge.asToken}` },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await response.text());
}

async function aRoomWithGhost(client: TestClient = alice): Promise<RoomId> {
  const roomId = await client.createRoom("11", { preset: "public_chat" });
  await asGhost("POST", `join/${encodeURIComponent(roomId)}`);
  return roomId;
}

function bodies(of: ServiceReceiver = receiver): readonly string[] {
  return of.events().flatMap((event) => (event.type === "m.room.message" ? [event.content.body] : []));
}

async function place(service: ApplicationService = bridge): Promise<bigint> {
  return (await loadPushState(database.pool, service.id))?.place.position ?? -1n;
}

async function newest(): Promise<bigint> {
  const { rows } = await database.pool.query<{ position: string }>("SELECT position FROM stream_position");
  return BigInt(rows[0]?.position ?? -1);
}

/** The service is told of what comes from here on. */
beforeEach(async () => {
  await database.pool.query(
    `DELETE FROM appservice_pushes;
     INSERT INTO appservice_pushes (appservice_id, position) SELECT '${bridge.id}', position FROM stream_position`,
  );
  receiver.handler = acknowledge;
  (receiver.seen as unknown[]).length = 0;
});

describe("startAppservicePushes", () => {
  it("pushes what happens in a room of a service's user, in the order of the stream, with the service's token", async () => {
    pushUntilTestEnds(api.ctx);
    const roomId = await aRoomWithGhost();
    const sent = [];
    for (const text of ["one", "two", "three"]) sent.push(await alice.send(roomId, text));
    await expect.poll(() => bodies()).toEqual(["one", "two", "three"]);
    const [first] = receiver.transactions();
    expect(first).toMatchObject({ method: "PUT", authorization: `Bearer ${bridge.hsToken}` });
    const messages = receiver.events().filter(({ type }) => type === "m.room.message");
    expect(messages.map(({ event_id: id }) => id)).toEqual(sent);
    expect(messages[0]).toMatchObject({ room_id: roomId, sender: alice.userId, origin_server_ts: expect.any(Number) });
  });

  it("tells nothing of rooms that the service has no interest in", async () => {
    pushUntilTestEnds(api.ctx);
    const other = await alice.createRoom();
    await alice.send(other, "private");
    await alice.send(await aRoomWithGhost(), "shared");
    await expect.poll(() => bodies()).toEqual(["shared"]);
    expect(receiver.events().filter(({ room_id: id }) => id === other)).toEqual([]);
  });

  it("puts at most 100 events into a transaction, each transaction under an id of its own", async () => {
    const roomId = await aRoomWithGhost();
    const texts = Array.from({ length: 230 }, (_, n) => `message ${n}`);
    for (const text of texts) await alice.send(roomId, text);
    pushUntilTestEnds(api.ctx);
    await expect.poll(() => bodies()).toEqual(texts);
    const sizes = receiver.transactions().map(({ body }) => body.events.length);
    expect(Math.max(...sizes)).toBe(100);
    expect(new Set(receiver.transactions().map(({ path }) => path)).size).toBe(sizes.length);
  });

  it("repeats a transaction that was not acknowledged under its id and with its content, before any other", async () => {
    const roomId = await aRoomWithGhost();
    await alice.send(roomId, "first");
    receiver.handler = refuse(500);
    pushUntilTestEnds(api.ctx);
    await expect.poll(() => receiver.transactions().length).toBeGreaterThanOrEqual(1);
    await alice.send(roomId, "second");
    await expect.poll(() => receiver.transactions().length).toBeGreaterThanOrEqual(3);
    receiver.handler = acknowledge;
    await expect.poll(() => bodies().at(-1)).toBe("second");
    const [first, ...others] = receiver.transactions();
    const repeated = others.filter(({ path }) => path === first?.path);
    expect(repeated.length).toBeGreaterThanOrEqual(2);
    expect(repeated.map(({ text }) => text)).toEqual(repeated.map(() => first?.text));
    const last = receiver.transactions().at(-1);
    expect(last?.body.events.map((event: { content: { body?: string } }) => event.content.body)).toEqual(["second"]);
  });

  it("repeats after a restart what was begun before it", async () => {
    const roomId = await aRoomWithGhost();
    await alice.send(roomId, "begun");
    receiver.handler = () => undefined;
    const before = pushUntilTestEnds(api.ctx, { drainMs: 0 });
    await expect.poll(() => receiver.transactions().length).toBe(1);
    await before.stop();
    receiver.handler = acknowledge;
    await alice.send(roomId, "new");
    pushUntilTestEnds(api.ctx);
    await expect.poll(() => bodies().at(-1)).toBe("new");
    const [first, second, ...rest] = receiver.transactions();
    expect(second?.path).toBe(first?.path);
    expect(second?.text).toBe(first?.text);
    expect(rest.flatMap(({ body }) => body.events.length)).toEqual([1]);
  });

  it("leaves nothing behind in memory or in tables while a service is down, and loses nothing", async () => {
    receiver.handler = refuse(503);
    pushUntilTestEnds(api.ctx, { longestRetryMs: 100 });
    const roomId = await aRoomWithGhost();
    const texts = Array.from({ length: 20 }, (_, n) => `missed ${n}`);
    for (const text of texts) await alice.send(roomId, text);
    await expect.poll(async () => (await loadPushState(database.pool, bridge.id))?.backOff?.retryIntervalMs).toBe(100);
    expect(await countFailingAppservices(database.pool)).toBe(1);
    const { rowCount } = await database.pool.query("SELECT FROM appservice_pushes");
    expect(rowCount).toBe(1);
    receiver.handler = acknowledge;
    await expect.poll(place).toBe(await newest());
    const told = new Map(receiver.transactions().map(({ path, body }) => [path, body.events]));
    const once = [...told.values()].flat().flatMap((event) => event.content.body ?? []);
    expect(once).toEqual(texts);
    expect((await loadPushState(database.pool, bridge.id))?.backOff).toBeUndefined();
  });

  it("tells of a room up to the leave of the service's user, also if that was long ago", async () => {
    const roomId = await aRoomWithGhost();
    await alice.send(roomId, "while there");
    await asGhost("POST", `rooms/${encodeURIComponent(roomId)}/leave`);
    await alice.send(roomId, "behind its back");
    pushUntilTestEnds(api.ctx);
    await expect.poll(place).toBe(await newest());
    expect(bodies()).toEqual(["while there"]);
    expect(receiver.events().at(-1)).toMatchObject({ state_key: ghost, content: { membership: "leave" } });
  });

  it("sends from one process at a time, and nothing twice", async () => {
    let underWay = 0;
    let most = 0;
    receiver.handler = async (request, response) => {
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setTimeout(resolve, 30));
      underWay -= 1;
      await acknowledge(request, response);
    };
    pushUntilTestEnds(api.ctx);
    pushUntilTestEnds(api.ctx);
    const roomId = await aRoomWithGhost();
    const texts = Array.from({ length: 20 }, (_, n) => `message ${n}`);
    for (const text of texts) await alice.send(roomId, text);
    await expect.poll(() => bodies()).toEqual(texts);
    expect(most).toBe(1);
  });

  it("holds up no other service with one that fails", async () => {
    const dead = aService({ url: "http://127.0.0.1:9", namespaces: { ...bridge.namespaces, rooms: [namespace("!")] } });
    pushUntilTestEnds({ ...api.ctx, appservices: appservicesOf(dead, bridge) });
    await alice.send(await aRoomWithGhost(), "hello");
    await expect.poll(() => bodies()).toEqual(["hello"]);
    await expect
      .poll(async () => (await loadPushState(database.pool, dead.id))?.backOff?.lastError)
      .toMatch(/9|refused/);
  });

  it("tells of an invitation to a room that no user of this server is in", async () => {
    const federation = await startLoopbackFederation(api.ctx);
    const them = await federation.remote("them.example");
    pushUntilTestEnds(api.ctx);
    const template = {
      type: "m.room.member",
      room_id: "!theirs:them.example",
      sender: "@bob:them.example",
      state_key: ghost,
      content: { membership: "invite" },
      prev_events: [],
      auth_events: [],
      depth: 5,
    };
    const event = them.complete(template, rulesFor("11"));
    const name = { type: "m.room.name", state_key: "", sender: "@bob:them.example", content: { name: "Theirs" } };
    const path = `/_matrix/federation/v2/invite/${event.roomId}/${encodeURIComponent(event.eventId)}`;
    const body = { room_version: "11", event: event.pdu, invite_room_state: [name] };
    expect((await them.ask("PUT", path, body)).status).toBe(200);
    await expect
      .poll(() => receiver.events())
      .toMatchObject([
        {
          event_id: event.eventId,
          room_id: "!theirs:them.example",
          state_key: ghost,
          content: { membership: "invite" },
          unsigned: { invite_room_state: [name] },
        },
      ]);
  });

  it("pushes at once to a service that has itself pinged, however long its back-off is", async () => {
    receiver.handler = refuse(503);
    pushUntilTestEnds(api.ctx, { firstRetryMs: 3_600_000, longestRetryMs: 3_600_000 });
    await alice.send(await aRoomWithGhost(), "hello");
    await expect
      .poll(async () => (await loadPushState(database.pool, bridge.id))?.backOff?.lastError)
      .toBe("it answered 503");
    receiver.handler = acknowledge;
    const path = `/_matrix/client/v1/appservice/${encodeURIComponent(bridge.id)}/ping`;
    expect((await api.call("POST", path, { query: { access_token: bridge.asToken }, body: {} })).status).toBe(200);
    await expect.poll(() => bodies()).toContain("hello");
  });

  it("leaves no service alone by a back-off that was written while the clock was an hour ahead", async () => {
    const ahead = Date.now() + 3_600_000;
    const backOff = { failingSince: ahead, retryAt: ahead + 100, retryIntervalMs: 100, lastError: "away" };
    await storePushBackOff(database.pool, bridge.id, backOff);
    await alice.send(await aRoomWithGhost(), "hello");
    pushUntilTestEnds(api.ctx);
    await expect.poll(() => bodies()).toEqual(["hello"]);
  });

  it("knows rooms by their id and by their alias", async () => {
    const roomId = await alice.createRoom("11", { room_alias_name: "portal_1" });
    const byId = await startServiceReceiver();
    const byAlias = await startServiceReceiver();
    const none = { users: [], aliases: [], rooms: [] };
    const services = [
      aService({ url: byId.url, namespaces: { ...none, rooms: [namespace(roomId)] } }),
      aService({ url: byAlias.url, namespaces: { ...none, aliases: [namespace("#portal_.*:us\\.example")] } }),
    ];
    pushUntilTestEnds({ ...api.ctx, appservices: appservicesOf(...services) });
    for (const service of services) await expect.poll(() => place(service)).toBe(await newest());
    await alice.send(roomId, "to the portal");
    await expect.poll(() => bodies(byId)).toEqual(["to the portal"]);
    await expect.poll(() => bodies(byAlias)).toEqual(["to the portal"]);
  });
});
