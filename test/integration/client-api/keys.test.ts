import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { deviceKeysOf, oneTimeKeys } from "../../support/device-keys.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);
const alice = await api.register("alice");
const bob = await api.register("bob");

const key = encodeURIComponent;

async function claim(client: TestClient, of: TestClient): Promise<Body> {
  const body = { one_time_keys: { [of.userId]: { [of.deviceId]: "signed_curve25519" } } };
  const answer = await client.ok("POST", "keys/claim", { body });
  return answer.one_time_keys[of.userId]?.[of.deviceId];
}

async function together(): Promise<string> {
  const roomId = await alice.createRoom("11", { preset: "public_chat" });
  await bob.ok("POST", `join/${key(roomId)}`);
  return roomId;
}

describe("keys/upload", () => {
  it("counts the one-time keys, and refuses another key under a name that is taken", async () => {
    const client = await api.register("counter");
    const first = await client.ok("POST", "keys/upload", { body: { one_time_keys: oneTimeKeys("A", "B") } });
    expect(first.one_time_key_counts).toEqual({ signed_curve25519: 2 });
    const again = await client.ok("POST", "keys/upload", { body: { one_time_keys: oneTimeKeys("B", "C") } });
    expect(again.one_time_key_counts).toEqual({ signed_curve25519: 3 });
    const other = { "signed_curve25519:A": { key: "another" } };
    const refused = await client.call("POST", "keys/upload", { body: { one_time_keys: other } });
    expect([refused.status, refused.body.errcode]).toEqual([400, "M_INVALID_PARAM"]);
    expect((await client.sync()).device_one_time_keys_count).toEqual({ signed_curve25519: 3 });
  });

  it("refuses keys of another device", async () => {
    const body = { device_keys: deviceKeysOf({ userId: alice.userId, deviceId: "OTHER" }) };
    const refused = await alice.call("POST", "keys/upload", { body });
    expect([refused.status, refused.body.errcode]).toEqual([400, "M_INVALID_PARAM"]);
  });

  it.each([
    { device_keys: { user_id: "@alice:us.example" } },
    { one_time_keys: { nocolon: "key" } },
    { one_time_keys: { "signed_curve25519:A": 7 } },
    { fallback_keys: ["a"] },
  ])("refuses %j", async (body) => {
    const refused = await alice.call("POST", "keys/upload", { body });
    expect([refused.status, refused.body.errcode]).toEqual([400, "M_BAD_JSON"]);
  });
});

describe("keys/claim", () => {
  it("hands each one-time key out once, also to many at the same time", async () => {
    const client = await api.register("popular");
    const names = Array.from({ length: 20 }, (_, index) => `K${String(index).padStart(2, "0")}`);
    await client.ok("POST", "keys/upload", { body: { one_time_keys: oneTimeKeys(...names) } });
    const claimed = await Promise.all(names.map(async () => claim(bob, client)));
    const taken = claimed.flatMap((one) => Object.keys(one)).toSorted();
    expect(taken).toEqual(names.map((name) => `signed_curve25519:${name}`));
    expect(await claim(bob, client)).toBeUndefined();
  });

  it("hands the oldest out first, and the fallback key when none is left", async () => {
    const client = await api.register("old");
    await client.ok("POST", "keys/upload", { body: { one_time_keys: oneTimeKeys("Z") } });
    await client.ok("POST", "keys/upload", {
      body: { one_time_keys: oneTimeKeys("A"), fallback_keys: oneTimeKeys("F") },
    });
    expect((await client.sync()).device_unused_fallback_key_types).toEqual(["signed_curve25519"]);
    expect(await claim(bob, client)).toEqual(oneTimeKeys("Z"));
    expect(await claim(bob, client)).toEqual(oneTimeKeys("A"));
    expect(await claim(bob, client)).toEqual(oneTimeKeys("F"));
    expect(await claim(bob, client)).toEqual(oneTimeKeys("F"));
    const synced = await client.sync();
    expect(synced.device_unused_fallback_key_types).toEqual([]);
    expect(synced.device_one_time_keys_count).toEqual({ signed_curve25519: 0 });
  });
});

describe("keys/query", () => {
  it("shows the devices that are asked for, with their names", async () => {
    const first = await api.register("shown");
    const second = await api.login("shown", "SECOND");
    for (const client of [first, second]) {
      await client.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(client) } });
    }
    await first.ok("PUT", "devices/SECOND", { body: { display_name: "The second" } });
    const of = async (devices: readonly string[]): Promise<Body> => {
      const body = { device_keys: { [first.userId]: devices } };
      return (await bob.ok("POST", "keys/query", { body })).device_keys[first.userId];
    };
    expect(Object.keys(await of([])).toSorted()).toEqual([first.deviceId, "SECOND"].toSorted());
    expect(await of(["SECOND"])).toEqual({
      SECOND: { ...deviceKeysOf(second), unsigned: { device_display_name: "The second" } },
    });
    await second.ok("POST", "logout");
    expect(Object.keys(await of([]))).toEqual([first.deviceId]);
  });

  it("names the servers that can't be reached", async () => {
    const body = { device_keys: { "@far:away.example": [], [alice.userId]: [] }, timeout: 1000 };
    const answer = await bob.ok("POST", "keys/query", { body });
    expect(Object.keys(answer.failures)).toEqual(["away.example"]);
    expect(Object.keys(answer.device_keys)).toEqual([alice.userId]);
  });
});

describe("device_lists", () => {
  it("tell who has changed, who shares a room now, and who shares none any more", async () => {
    const since = (await bob.sync()).next_batch;
    const roomId = await together();
    const met = await bob.sync({ since });
    expect(met.device_lists).toEqual({ changed: [alice.userId, bob.userId].toSorted(), left: [] });

    await alice.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(alice, "changed") } });
    const changed = await bob.sync({ since: met.next_batch });
    expect(changed.device_lists).toEqual({ changed: [alice.userId], left: [] });
    expect((await bob.sync({ since: changed.next_batch })).device_lists).toBeUndefined();

    await alice.ok("PUT", `rooms/${key(roomId)}/state/m.room.member/${key(alice.userId)}`, {
      body: { membership: "join", displayname: "Renamed" },
    });
    const renamed = await bob.sync({ since: changed.next_batch });
    expect(renamed.device_lists).toBeUndefined();

    await alice.ok("POST", `rooms/${key(roomId)}/leave`);
    const left = await bob.sync({ since: renamed.next_batch });
    expect(left.device_lists).toEqual({ changed: [], left: [alice.userId] });
    const whole = await bob.ok("GET", "keys/changes", { query: { from: met.next_batch, to: left.next_batch } });
    expect(whole.left).toEqual([alice.userId]);
  });

  it("wake a sync that waits", async () => {
    await together();
    const { next_batch: since } = await bob.sync();
    const waiting = bob.sync({ since, timeout: "600000" });
    await alice.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(alice, "woken") } });
    expect((await waiting).device_lists).toEqual({ changed: [alice.userId], left: [] });
  });

  it("say nothing of those who share no room", async () => {
    const stranger = await api.register("stranger");
    const { next_batch: since } = await stranger.sync();
    await alice.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(alice, "unseen") } });
    expect((await stranger.sync({ since })).device_lists).toBeUndefined();
  });
});
