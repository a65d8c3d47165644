import { afterEach, describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import type { Front } from "../../resident/front.ts";
import { crossSigningKeyOf, deviceKeysOf } from "../../support/device-keys.ts";
import { openDeviceScene } from "../../support/device-scene.ts";
import type { TestClient } from "../../support/loopback-client.ts";

const { resident, database, aUser, enter, tell, devicesSeen, fronts } = await openDeviceScene();
const [first, second] = fronts;

afterEach(() => {
  for (const front of fronts) resident.clearTrouble(front);
});

const keysOf = (userId: UserId, deviceId: string): ReturnType<typeof deviceKeysOf> =>
  deviceKeysOf({ userId, deviceId });

/** Gives a user of the resident devices, whose list ends with the update of this id. */
function host(userId: UserId, streamId: number, ...deviceIds: readonly string[]): void {
  const devices = Object.fromEntries(deviceIds.map((deviceId) => [deviceId, keysOf(userId, deviceId)]));
  resident.world.deviceLists.set(userId, { streamId, devices });
}

interface Update {
  readonly deviceId: string;
  readonly streamId: number;
  readonly prevIds: readonly number[];
  readonly deleted?: boolean;
}

async function update(front: Front, userId: UserId, { deviceId, streamId, prevIds, deleted }: Update): Promise<void> {
  await tell(front, "m.device_list_update", {
    user_id: userId,
    device_id: deviceId,
    stream_id: streamId,
    prev_id: prevIds,
    ...(deleted === true ? { deleted } : { keys: keysOf(userId, deviceId) }),
  });
}

/** How often the user's whole list was asked for. */
function fetches(front: Front, userId: UserId): number {
  const asked = front.requests.filter((one) => one.endpoint === "user_devices" && one.status !== undefined);
  return asked.filter((one) => decodeURIComponent(one.uri).endsWith(userId)).length;
}

async function seen(client: TestClient, userId: UserId): Promise<readonly string[]> {
  return Object.keys((await devicesSeen(client, userId)) ?? {}).toSorted();
}

let others = 0;

/** A new user of a front who is joined in the room of a user of ours. */
async function together(front: Front = second): Promise<{ alice: TestClient; userId: UserId }> {
  const alice = await aUser();
  const { room, complete } = await enter(alice);
  await complete();
  others += 1;
  const userId: UserId = `@other${others}:${front.serverName}`;
  await resident.join(room, userId);
  return { alice, userId };
}

describe("the devices of another server's user", () => {
  it("are asked for once, and kept up to date by what their server tells", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    expect(await devicesSeen(alice, userId)).toEqual({ ONE: keysOf(userId, "ONE") });
    const { next_batch: since } = await alice.sync();

    await update(second, userId, { deviceId: "TWO", streamId: 6, prevIds: [5] });
    expect((await alice.sync({ since })).device_lists.changed).toEqual([userId]);
    expect(await seen(alice, userId)).toEqual(["ONE", "TWO"]);
    await update(second, userId, { deviceId: "ONE", streamId: 7, prevIds: [6], deleted: true });
    expect(await seen(alice, userId)).toEqual(["TWO"]);
    expect(fetches(second, userId)).toBe(1);
  });

  it("are fetched anew after a gap in the updates", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    await seen(alice, userId);
    host(userId, 9, "ONE", "MISSED", "LAST");
    const { next_batch: since } = await alice.sync();
    await update(second, userId, { deviceId: "LAST", streamId: 9, prevIds: [8] });
    expect((await alice.sync({ since })).device_lists.changed).toEqual([userId]);
    await expect.poll(() => fetches(second, userId)).toBe(2);
    expect(await seen(alice, userId)).toEqual(["LAST", "MISSED", "ONE"]);
    await update(second, userId, { deviceId: "NEXT", streamId: 10, prevIds: [9] });
    expect(await seen(alice, userId)).toEqual(["LAST", "MISSED", "NEXT", "ONE"]);
    expect(fetches(second, userId)).toBe(2);
  });

  it("are asked for again after a gap in which their server could not be reached", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    await seen(alice, userId);
    host(userId, 9, "NEW");
    resident.trouble({ kind: "refuse", status: 403, at: "user_devices" }, second);
    await update(second, userId, { deviceId: "NEW", streamId: 9, prevIds: [8] });
    await expect.poll(() => fetches(second, userId)).toBe(2);
    resident.clearTrouble(second);
    await expect.poll(async () => seen(alice, userId)).toEqual(["NEW"]);
  });

  it("don't change by an update that comes again", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    await seen(alice, userId);
    await update(second, userId, { deviceId: "TWO", streamId: 6, prevIds: [5] });
    const { next_batch: since } = await alice.sync();
    await update(second, userId, { deviceId: "TWO", streamId: 6, prevIds: [5] });
    expect((await alice.sync({ since })).device_lists).toBeUndefined();
    expect(fetches(second, userId)).toBe(1);
  });

  it("are fetched again where an update came while they were fetched", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    const letGo = resident.trouble({ kind: "hold", at: "user_devices", times: 1 }, second);
    const query = seen(alice, userId);
    await expect.poll(() => second.requests.some(({ uri }) => decodeURIComponent(uri).endsWith(userId))).toBe(true);
    host(userId, 6, "ONE", "TWO");
    await update(second, userId, { deviceId: "TWO", streamId: 6, prevIds: [5] });
    letGo();
    expect(await query).toEqual(["ONE", "TWO"]);
    expect(fetches(second, userId)).toBe(2);
  });

  it("are told by their own server alone", async () => {
    const { alice, userId } = await together();
    host(userId, 5, "ONE");
    await seen(alice, userId);
    const { next_batch: since } = await alice.sync();
    await update(first, userId, { deviceId: "FORGED", streamId: 6, prevIds: [5] });
    expect((await alice.sync({ since })).device_lists).toBeUndefined();
    expect(await seen(alice, userId)).toEqual(["ONE"]);
  });

  it("are held no longer once no room is shared, and asked for anew when one is shared again", async () => {
    const alice = await aUser();
    const { room, complete } = await enter(alice);
    await complete();
    const userId: UserId = `@passing:${second.serverName}`;
    await resident.join(room, userId);
    host(userId, 5, "ONE");
    await seen(alice, userId);
    const { next_batch: since } = await alice.sync();

    await resident.leave(room, userId);
    expect((await alice.sync({ since })).device_lists).toEqual({ changed: [], left: [userId] });
    host(userId, 8, "ELSEWHERE");
    await update(second, userId, { deviceId: "ELSEWHERE", streamId: 8, prevIds: [7] });
    await resident.join(room, userId);
    expect(await seen(alice, userId)).toEqual(["ELSEWHERE"]);
    expect(fetches(second, userId)).toBe(2);
  });

  it("are asked for each time of one who shares no room with us", async () => {
    const alice = await aUser();
    const userId: UserId = `@stranger:${second.serverName}`;
    host(userId, 5, "ONE");
    expect(await devicesSeen(alice, userId)).toEqual({ ONE: keysOf(userId, "ONE") });
    host(userId, 6, "TWO");
    expect(await seen(alice, userId)).toEqual(["TWO"]);
    expect(fetches(second, userId)).toBe(0);
  });

  it("are shown though their server refuses another user's", async () => {
    const { alice, userId } = await together();
    const { room, complete } = await enter(alice);
    await complete();
    const refused: UserId = `@refused:${second.serverName}`;
    await resident.join(room, refused);
    host(userId, 5, "ONE");
    await seen(alice, userId);
    resident.trouble({ kind: "refuse", status: 403, at: "user_devices" }, second);
    const body = { device_keys: { [refused]: [], [userId]: [] } };
    const answer = await alice.ok("POST", "keys/query", { body });
    expect(answer.device_keys).toEqual({ [userId]: { ONE: keysOf(userId, "ONE") } });
    expect(answer.failures).toMatchObject({ [second.serverName]: { errcode: "M_FORBIDDEN" } });
  });

  it("come with their cross-signing keys, which updates replace", async () => {
    const { alice, userId } = await together();
    const master = (name: string): ReturnType<typeof crossSigningKeyOf> => crossSigningKeyOf(userId, "master", name);
    host(userId, 5, "ONE");
    const hosted = resident.world.deviceLists.get(userId);
    if (hosted !== undefined) hosted.masterKey = master("M1");
    const shown = async (): Promise<unknown> => {
      const answer = await alice.ok("POST", "keys/query", { body: { device_keys: { [userId]: [] } } });
      return answer.master_keys[userId];
    };
    expect(await shown()).toEqual(master("M1"));
    const { next_batch: since } = await alice.sync();
    await tell(second, "m.signing_key_update", { user_id: userId, master_key: master("M2") });
    expect((await alice.sync({ since })).device_lists.changed).toEqual([userId]);
    expect(await shown()).toEqual(master("M2"));
    expect(fetches(second, userId)).toBe(1);
  });
});

describe("one-time keys of another server's user", () => {
  it("are claimed there, and a server that fails is named", async () => {
    const alice = await aUser();
    const userId: UserId = `@claimed:${second.serverName}`;
    host(userId, 5, "ONE");
    const hosted = resident.world.deviceLists.get(userId);
    const key = { "signed_curve25519:A": { key: "a" } };
    if (hosted !== undefined) hosted.oneTimeKeys = { ONE: [key] };
    const claim = async (): Promise<unknown> => {
      const wanted = { [userId]: { ONE: "signed_curve25519" }, [first.user]: { NONE: "signed_curve25519" } };
      return await alice.ok("POST", "keys/claim", { body: { one_time_keys: wanted } });
    };
    expect(await claim()).toEqual({ one_time_keys: { [userId]: { ONE: key } }, failures: {} });
    resident.trouble({ kind: "refuse", status: 403, at: "user_keys_claim" }, second);
    expect(await claim()).toMatchObject({
      one_time_keys: {},
      failures: { [second.serverName]: { errcode: "M_FORBIDDEN" } },
    });
  });
});

describe("device lists of a partial room's members", () => {
  it("whose updates came while we did not know them are told after the resync", async () => {
    const alice = await aUser();
    const outsider: UserId = `@outsider:${second.serverName}`;
    const insider: UserId = `@insider:${second.serverName}`;
    const { complete } = await enter(alice, [], async (room) => resident.join(room, insider));
    const { next_batch: since } = await alice.sync();
    await update(second, insider, { deviceId: "NEW", streamId: 3, prevIds: [2] });
    await update(second, outsider, { deviceId: "NEW", streamId: 3, prevIds: [2] });
    expect((await alice.sync({ since })).device_lists).toBeUndefined();
    const kept = `SELECT user_id FROM pending_device_updates ORDER BY user_id`;
    expect((await database.pool.query(kept)).rows.map((row) => row.user_id)).toEqual([insider, outsider]);

    await complete();
    const { changed } = (await alice.sync({ since })).device_lists;
    expect(changed).toContain(insider);
    expect(changed).not.toContain(outsider);
    const replayed = await database.pool.query(`SELECT user_id FROM device_list_changes WHERE user_id LIKE $1`, [
      `%:${second.serverName}`,
    ]);
    expect(replayed.rows.map((row) => row.user_id)).toContain(insider);
    expect(replayed.rows.map((row) => row.user_id)).not.toContain(outsider);
    expect((await database.pool.query(kept)).rows).toEqual([]);
  });

  it("are held no longer of one who was wrongly believed to be there", async () => {
    const alice = await aUser();
    const { room, complete } = await enter(alice);
    const wrong: UserId = `@wrong:${second.serverName}`;
    await resident.join(room, wrong);
    host(wrong, 5, "ONE");
    expect(await seen(alice, wrong)).toEqual(["ONE"]);
    const { next_batch: since } = await alice.sync();
    const ban = await resident.ban(room, wrong, { push: false });
    const key = { type: "m.room.member", stateKey: wrong };
    resident.trouble({ kind: "lie", lie: "replace-state", ...key, eventId: ban.eventId, at: ["state_ids", "state"] });

    await complete();

    const held = await database.pool.query(`SELECT 1 FROM remote_device_lists WHERE user_id = $1`, [wrong]);
    expect(held.rows).toEqual([]);
    expect((await alice.sync({ since })).device_lists.left).toEqual([wrong]);
  });
});
