import type { QueryConfig } from "pg";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { splitStateKey } from "../../../src/matrix/state.ts";
import { MOST_EVENTS } from "../../../src/rooms/events/event-portions.ts";
import { readState } from "../../../src/rooms/read/read-state.ts";
import { openDatabase, transaction } from "../../../src/storage/database.ts";
import { purgeRoom } from "../../../src/storage/purge-room.ts";
import { openClientScene, type EnteredRoom } from "../../support/client-scene.ts";
import { startLoopbackClientApi, type Body, type TestClient } from "../../support/loopback-client.ts";

const scene = await openClientScene();
const { api, database, resident } = scene;

const failing = openDatabase(database.url);
afterAll(async () => failing.close());
const apiOfFailing = await startLoopbackClientApi(failing);

/** More than an answer holds that is written at once. */
const MEMBERS = 3_000;

let entered: EnteredRoom;
let ids: readonly string[];
let memberIds: readonly string[];

beforeAll(async () => {
  entered = await scene.enter({ room: { members: MEMBERS, servers: 5 } });
  await entered.complete();
  const state = [...resident.fullState(entered.room)];
  ids = state.map(([, id]) => id).toSorted();
  memberIds = state.flatMap(([key, id]) => (splitStateKey(key)[0] === "m.room.member" ? [id] : [])).toSorted();
});

const idsOf = (events: readonly Body[]): readonly string[] => events.map((event) => event.event_id).toSorted();

/** What the failing database does as long as the test has not replaced it. */
function unhinderedQuery(): (asked: QueryConfig) => Promise<unknown> {
  const { query } = failing.pool;
  onTestFinished(() => {
    failing.pool.query = query;
  });
  return query.bind(failing.pool) as (asked: QueryConfig) => Promise<unknown>;
}

async function askFailing({ accessToken }: TestClient, path: string): Promise<Response> {
  const headers = { authorization: `Bearer ${accessToken}` };
  return await fetch(`${apiOfFailing.url}/_matrix/client/v3/${path}`, { headers });
}

describe("a client's answer about a room of thousands of members", () => {
  it("has its whole state, members and profiles, written as they are read", async () => {
    const { client, at } = entered;
    const state = await client.call("GET", at("state"));
    expect(state.headers.get("content-length")).toBeNull();
    expect(idsOf(state.body)).toEqual(ids);
    expect(state.body[0]).toMatchObject({ room_id: entered.room.roomId, unsigned: { age: expect.any(Number) } });
    expect(idsOf((await client.ok("GET", at("members"))).chunk)).toEqual(memberIds);
    const query = { membership: "join" };
    const { chunk } = await client.ok("GET", at("members"), { query });
    const { joined } = await client.ok("GET", at("joined_members"));
    expect(Object.keys(joined).toSorted()).toEqual(chunk.map((event: Body) => event.state_key).toSorted());
    const others = await client.ok("GET", at("members"), { query: { not_membership: "join" } });
    expect(idsOf([...chunk, ...others.chunk])).toEqual(memberIds);
  });

  it("has the same state in a sync, beside what else it tells", async () => {
    const { client, room } = entered;
    const answer = await client.call("GET", "sync", { query: { use_state_after: "true" } });
    expect(answer.headers.get("content-length")).toBeNull();
    const joined = answer.body.rooms.join[room.roomId];
    expect(idsOf(joined.state_after.events)).toEqual(ids);
    expect(joined.state_after.events[0]).not.toHaveProperty("room_id");
    expect(answer.body.next_batch).toMatch(/^s\d+$/);
    const before = (await client.sync()).rooms.join[room.roomId];
    expect(idsOf([...before.state.events, ...before.timeline.events]).filter((id) => ids.includes(id))).toEqual(ids);
    const named = JSON.stringify({ room: { state: { types: ["m.room.create"] } } });
    expect((await client.sync({ filter: named })).rooms.join[room.roomId].state.events).toHaveLength(1);
  });

  it("breaks off where the database fails behind its beginning", async () => {
    const { client, at } = entered;
    const query = unhinderedQuery();
    let reads = 0;
    let readsLeft = Number.POSITIVE_INFINITY;
    const counting = async (asked: QueryConfig): Promise<unknown> => {
      if (asked.text.includes("octet_length")) reads = 0;
      if (asked.text.includes("FROM events e WHERE event_id = ANY") && ++reads > readsLeft) throw new Error("broken");
      return await query(asked);
    };
    failing.pool.query = counting as typeof failing.pool.query;
    const ask = async (): Promise<Response> => await askFailing(client, at("state"));
    expect(idsOf(JSON.parse(await (await ask()).text()))).toEqual(ids);
    readsLeft = reads - 1;
    const broken = await ask();
    expect(broken.status).toBe(200);
    await expect(broken.text()).rejects.toThrow();
    readsLeft = 0;
    expect((await ask()).status).toBe(500);
  });

  it("breaks off where the room is purged meanwhile", async () => {
    const { client, room } = entered;
    const wanted = { roomId: room.roomId, userId: client.userId };
    const batches = (await readState(api.ctx, wanted))[Symbol.asyncIterator]();
    expect((await batches.next()).value).toHaveLength(MOST_EVENTS);
    await transaction(database, (tx) => purgeRoom(tx, room.roomId));
    await expect(batches.next()).rejects.toMatchObject({ status: 404, errcode: "M_NOT_FOUND" });
  });
});

describe("a sync in which one of the rooms is purged", () => {
  it("is to be asked for again, and does without the room then", async () => {
    const { client, room, complete } = await scene.enter();
    await complete();
    const query = unhinderedQuery();
    let purges = 0;
    const purging = async (asked: QueryConfig): Promise<unknown> => {
      if (asked.text.includes("octet_length") && ++purges === 1) {
        await transaction(database, (tx) => purgeRoom(tx, room.roomId));
      }
      return await query(asked);
    };
    failing.pool.query = purging as typeof failing.pool.query;
    const answer = await askFailing(client, "sync");
    expect(answer.status).toBe(503);
    expect(await answer.json()).toMatchObject({ errcode: "M_UNKNOWN" });
    const again = await askFailing(client, "sync");
    expect(again.status).toBe(200);
    expect(await again.text()).not.toContain(room.roomId);
    expect(purges).toBe(1);
  });
});
