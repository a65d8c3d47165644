import { describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import { canonicalJson } from "../../../src/matrix/canonical-json.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import { LosslessNumber, type JsonObject, type JsonValue } from "../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { receiveTransaction } from "../../../src/rooms/receive/receive-transaction.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { forge, madeUpId } from "../../resident/forge.ts";
import type { HostedEvent, HostedRoom } from "../../resident/hosted-room.ts";
import { callServer } from "../../resident/outbound.ts";
import { digestOf, watched } from "../../support/hostile-scene.ts";
import { completeResync, enterRoom, join, type EnteredRoom } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;
const { serverName } = resident;

function forged(room: HostedRoom, changes: JsonObject, content: JsonObject = {}): HostedEvent {
  return forge(resident, room, {
    sender: resident.front.user,
    type: "org.example.forged",
    content,
    changes: changes as never,
  });
}

let transactions = 0;

/** What our side logs and answers to a transaction of these. */
async function receive(pdus: readonly JsonValue[]): Promise<{ readonly results: JsonObject; readonly log: string }> {
  const { ctx, log } = watched(scene);
  transactions += 1;
  const txnId = `hostile-${transactions}`;
  const results = await receiveTransaction(ctx, { origin: serverName, txnId, pdus, edus: [] });
  return { results, log: log.join("") };
}

async function expectTaken({ event }: HostedEvent): Promise<void> {
  const { results } = await receive([event.pdu]);
  expect(results).toEqual({ [event.eventId]: {} });
  expect(await loadEvent(pool, event.eventId)).toMatchObject({ outlier: false, rejection: null });
}

async function expectDropped(pdu: JsonValue, reason: RegExp): Promise<void> {
  const before = await digestOf(database);
  const { results, log } = await receive([pdu]);
  expect(results).toEqual({});
  expect(log).toMatch(reason);
  expect(log).toContain(serverName);
  expect(await digestOf(database)).toEqual(before);
}

let rooms = 0;

async function enterRoomOf(version: RoomVersion): Promise<EnteredRoom> {
  rooms += 1;
  const room = resident.hostRoom({ members: 10, servers: 2, version, label: `hostile pdus ${rooms}` });
  const joined = await join(scene, sidecar.ctx, room);
  const entered = { room, roomId: room.roomId, target: { roomId: room.roomId, joinEventId: joined.eventId } };
  await completeResync(scene, entered);
  return entered;
}

describe("a PDU at its limit is taken, and one beyond it is dropped with the cause in the log:", () => {
  it("20 prev_events, and 21", async () => {
    const { room } = await enterRoomOf("11");
    const prev: EventId[] = [];
    for (let index = 0; index < 21; index += 1) {
      prev.push((await resident.sendMessage(room, resident.front.user, `${index}`, { push: false })).eventId);
    }
    await resident.deliver(room, prev);
    await expectTaken(forged(room, { prev_events: prev.slice(0, 20) }));
    await expectDropped(forged(room, { prev_events: prev }).event.pdu, /prev_events has 21 entries, more than 20/);
  });

  it("65,536 bytes, and one more", async () => {
    const { room } = await enterRoomOf("11");
    const spare = 65_536 - Buffer.byteLength(canonicalJson(forged(room, {}, { body: "" }).event.pdu, "strict"));
    await expectTaken(forged(room, {}, { body: "x".repeat(spare) }));
    await expectDropped(forged(room, {}, { body: "x".repeat(spare + 1) }).event.pdu, /larger than 65536 bytes/);
  });

  it.each<[RoomVersion, bigint]>([
    ["11", 2n ** 53n - 1n],
    ["5", 2n ** 63n - 1n],
  ])("the depth of room version %s, and one more; and we can speak after it", async (version, limit) => {
    const { room, roomId } = await enterRoomOf(version);
    const depth = (value: bigint): JsonValue =>
      value <= 2n ** 53n - 1n ? Number(value) : new LosslessNumber(`${value}`);
    const { pdu } = forged(room, {}, { beyond: true }).event;
    await expectDropped({ ...pdu, depth: depth(limit + 1n) }, /depth is not within 0 and|not written as an integer/);
    await expectTaken(forged(room, { depth: depth(limit) }));
    const content = { msgtype: "m.text", body: "after the end of depth" };
    const ours = await createEvent(sidecar.ctx, { roomId, sender: sidecar.userId, type: "m.room.message", content });
    expect(await loadEvent(pool, ours.eventId)).toMatchObject({ rejection: null, outlier: false });
  });

  it("integers beyond 2^53 from room version 6 on, and before", async () => {
    const big = { number: new LosslessNumber("9007199254740993") };
    const strict = await enterRoomOf("11");
    const { pdu } = forged(strict.room, {}).event;
    await expectDropped({ ...pdu, content: big }, /9007199254740993 is not written as an integer/);
    const lax = await enterRoomOf("5");
    const event = forged(lax.room, {}, big);
    await expectTaken(event);
    expect((await loadEvent(pool, event.event.eventId))?.pdu.content).toEqual(big);
  });
});

describe("PDUs for rooms that we are not in", () => {
  it("change nothing, however many come, and leave one line each transaction in the log", async () => {
    const before = await digestOf(database);
    const flood = Array.from({ length: 50 }, (_none, index) => ({
      type: "m.room.message",
      room_id: `!${index % 2 === 0 ? "even" : "odd"}:elsewhere.example`,
      event_id: madeUpId(`flood${index}`),
      content: { body: "x".repeat(10_000) },
    }));
    for (let round = 0; round < 20; round += 1) {
      const { results, log } = await receive(flood);
      expect(Object.keys(results)).toHaveLength(50);
      expect(new Set(Object.values(results).map((one) => JSON.stringify(one)))).toEqual(
        new Set(['{"error":"this server is not in the room"}']),
      );
      expect(log.trim().split("\n")).toHaveLength(2);
    }
    expect(await digestOf(database)).toEqual(before);
  });
});

describe("a transaction that is sent again", () => {
  it("has the first one's answer, and changes nothing", async () => {
    const { room } = await enterRoom(scene);
    const { pdu, eventId } = forged(room, {}, { body: "once" }).event;
    const uri = paths.send("replayed");
    const send = async (pdus: readonly JsonValue[]): Promise<unknown> => {
      const content = { origin: serverName, origin_server_ts: 1, pdus };
      const to = { origin: serverName, destination: sidecar.serverName };
      return await callServer(resident.world, { ...to, method: "PUT", uri, content });
    };
    expect(await send([pdu])).toMatchObject({ status: 200, body: { pdus: { [eventId]: {} } } });
    const before = await digestOf(database);

    expect(await send([pdu])).toMatchObject({ status: 200, body: { pdus: { [eventId]: {} } } });
    // Under the same id with other events in it: whoever does so is answered for the first.
    const other = forged(room, {}, { body: "another" }).event;
    expect(await send([other.pdu])).toMatchObject({ status: 200, body: { pdus: { [eventId]: {} } } });

    expect(await loadEvent(pool, other.eventId)).toBeUndefined();
    expect(await digestOf(database)).toEqual(before);
  });
});
