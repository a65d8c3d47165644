import { beforeEach, describe, expect, it } from "vitest";
import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { createUser } from "../../../src/storage/accounts.ts";
import {
  appservicesOf,
  aService,
  pushUntilTestEnds,
  startServiceReceiver,
  type ServiceReceiver,
} from "../../support/application-service.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi, type Body } from "../../support/loopback-client.ts";

const database = await openTestDatabase();
const receiver = await startServiceReceiver();
const deafReceiver = await startServiceReceiver();
const bridge = aService({ url: receiver.url, receiveEphemeral: true });
const deaf = aService({ url: deafReceiver.url });
const api = await startLoopbackClientApi(database, { appservices: appservicesOf(bridge, deaf) });
const alice = await api.register("alice");
const stranger = await api.register("stranger");
const ghost: UserId = "@_bridge_ghost:us.example";
await createUser(database, ghost);
const key = encodeURIComponent;

let roomId: RoomId;
let message: string;

async function asGhost(method: string, path: string, body: object = {}): Promise<void> {
  const query = { access_token: bridge.asToken, user_id: ghost };
  const answer = await api.call(method, path, { query, body });
  expect(answer.status).toBe(200);
}

function ephemeral(type: string, of: ServiceReceiver = receiver): readonly Body[] {
  return of
    .transactions()
    .flatMap(({ body }) => body.ephemeral ?? [])
    .filter((event: Body) => event.type === type);
}

beforeEach(async () => {
  roomId = await alice.createRoom("11", { preset: "public_chat" });
  await asGhost("POST", `join/${key(roomId)}`);
  message = await alice.send(roomId, "hello");
  await database.pool.query("DELETE FROM appservice_pushes");
  await database.pool.query(
    `INSERT INTO appservice_pushes (appservice_id, position)
     SELECT unnest($1::text[]), position FROM stream_position`,
    [[bridge.id, deaf.id]],
  );
  for (const one of [receiver, deafReceiver]) (one.seen as unknown[]).length = 0;
  pushUntilTestEnds(api.ctx);
});

describe("the ephemeral events of a transaction", () => {
  it("say who types in a room of the service, and when nobody does any more", async () => {
    const path = `rooms/${key(roomId)}/typing/${key(alice.userId)}`;
    await alice.ok("PUT", path, { body: { typing: true, timeout: 30_000 } });
    const typing = { type: "m.typing", room_id: roomId };
    await expect.poll(() => ephemeral("m.typing")).toEqual([{ ...typing, content: { user_ids: [alice.userId] } }]);
    await alice.ok("PUT", path, { body: { typing: false } });
    await expect.poll(() => ephemeral("m.typing").at(-1)).toEqual({ ...typing, content: { user_ids: [] } });
  });

  it("say who has read what, private receipts only of the service's own users", async () => {
    const path = `rooms/${key(roomId)}/receipt`;
    await alice.ok("POST", `${path}/m.read.private/${key(message)}`);
    await alice.ok("POST", `${path}/m.read/${key(message)}`);
    await asGhost("POST", `${path}/m.read.private/${key(message)}`);
    const told = (): Body => Object.assign({}, ...ephemeral("m.receipt").map(({ content }) => content[message]));
    await expect.poll(() => Object.keys(told()).toSorted()).toEqual(["m.read", "m.read.private"]);
    expect(ephemeral("m.receipt").every(({ room_id: id }) => id === roomId)).toBe(true);
    expect(Object.keys(told()["m.read"])).toEqual([alice.userId]);
    expect(Object.keys(told()["m.read.private"])).toEqual([ghost]);
  });

  it("say how those are who share a room with the service's users", async () => {
    const status = { presence: "online", status_msg: "weaving" };
    await stranger.ok("PUT", `presence/${key(stranger.userId)}/status`, { body: status });
    await alice.ok("PUT", `presence/${key(alice.userId)}/status`, { body: status });
    await expect.poll(() => ephemeral("m.presence").at(-1)).toMatchObject({ sender: alice.userId, content: status });
    expect(ephemeral("m.presence").filter(({ sender }) => sender === stranger.userId)).toEqual([]);
  });

  it("are for services that ask for them, of rooms that they are interested in", async () => {
    const other = await stranger.createRoom();
    const typing = { body: { typing: true, timeout: 30_000 } };
    await stranger.ok("PUT", `rooms/${key(other)}/typing/${key(stranger.userId)}`, typing);
    await alice.ok("PUT", `rooms/${key(roomId)}/typing/${key(alice.userId)}`, typing);
    await alice.send(roomId, "the last");
    for (const one of [receiver, deafReceiver]) {
      await expect.poll(() => one.events().some(({ content }) => content.body === "the last")).toBe(true);
    }
    expect(ephemeral("m.typing").map(({ room_id: id }) => id)).toEqual([roomId]);
    expect(ephemeral("m.typing", deafReceiver)).toEqual([]);
  });
});
