import { afterAll, expect, describe, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { deviceKeysOf, oneTimeKeys } from "../../support/device-keys.ts";
import { startInProcessSidecar } from "../../support/in-process-sidecar.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, LoopbackClientApi, TestClient } from "../../support/loopback-client.ts";

const databases = [await openTestDatabase(), await openTestDatabase()] as const;
async function start(database: (typeof databases)[number]): Promise<LoopbackClientApi> {
  const sidecar = await startInProcessSidecar(database);
  afterAll(async () => sidecar.close());
  return await startLoopbackClientApi(database, sidecar.ctx);
}

const [one, two] = [await start(databases[0]), await start(databases[1])];
const [alice, bob] = [await one.register("alice"), await two.register("bob")];

/** Syncs until the answer is as wanted. */
async function until(client: TestClient, from: string, wanted: (answer: Body) => boolean): Promise<Body> {
  let since = from;
  for (;;) {
    const answer: Body = await client.sync({ since, timeout: "5000" });
    if (wanted(answer)) return answer;
    since = answer.next_batch;
  }
}

const tells = (userId: string) => (answer: Body) => answer.device_lists?.changed.includes(userId) === true;

async function seen(client: TestClient, userId: string): Promise<Body> {
  const answer = await client.ok("POST", "keys/query", { body: { device_keys: { [userId]: [] } } });
  return answer.device_keys[userId];
}

describe("devices of users who share a room over federation", () => {
  it("are followed through new, changed and lost devices, and can be written to", async () => {
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    const { next_batch: start } = await alice.sync();
    await expect.poll(async () => (await bob.call("POST", `join/${encodeURIComponent(roomId)}`)).status).toBe(200);
    const met = await until(alice, start, tells(bob.userId));
    expect(await seen(alice, bob.userId)).toEqual({});

    const keys = { device_keys: deviceKeysOf(bob), one_time_keys: oneTimeKeys("A") };
    await bob.ok("POST", "keys/upload", { body: keys });
    const added = await until(alice, met.next_batch, tells(bob.userId));
    expect(await seen(alice, bob.userId)).toEqual({ [bob.deviceId]: deviceKeysOf(bob) });

    const wanted = { one_time_keys: { [bob.userId]: { [bob.deviceId]: "signed_curve25519" } } };
    const claimed = await alice.ok("POST", "keys/claim", { body: wanted });
    expect(claimed.one_time_keys).toEqual({ [bob.userId]: { [bob.deviceId]: oneTimeKeys("A") } });

    const messages = { [bob.userId]: { [bob.deviceId]: { secret: "hello" } } };
    const { next_batch: since } = await bob.sync();
    await alice.ok("PUT", "sendToDevice/m.room.encrypted/1", { body: { messages } });
    const received = await until(bob, since, (answer) => answer.to_device !== undefined);
    expect(received.to_device.events).toEqual([
      { sender: alice.userId, type: "m.room.encrypted", content: { secret: "hello" } },
    ]);

    await bob.ok("POST", "logout");
    await until(alice, added.next_batch, tells(bob.userId));
    expect(await seen(alice, bob.userId)).toEqual({});
  });
});
