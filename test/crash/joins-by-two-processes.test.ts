import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { openDatabase, type Database } from "../../src/storage/database.ts";
import { currentStreamPosition, unPartialStatedEvents, unPartialStatedRooms } from "../../src/storage/streams.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { startFleet, type Fleet } from "../support/fleet.ts";
import { httpClient, type HttpClient } from "../support/http-client.ts";
import { eventually } from "../support/sidecar-process.ts";
import { addUser, expectEqualStates, joinVia, untilComplete } from "../support/sidecar-scene.ts";

let resident: Resident;
let fleet: Fleet;
let database: Database;

beforeAll(async () => {
  resident = await startResident();
  fleet = await startFleet(resident, { serves: 2, workers: 1 });
  database = openDatabase(fleet.databaseUrl);
});
afterAll(async () => {
  await database.close();
  await fleet.close();
  await resident.close();
});

interface Message {
  readonly type: string;
  readonly event_id: EventId;
}

/** Those of before, which the room was made with, are left out. */
async function messagesSeen(
  client: HttpClient,
  roomId: string,
  before: ReadonlySet<EventId>,
): Promise<readonly EventId[]> {
  const path = `rooms/${encodeURIComponent(roomId)}/messages?dir=b&limit=100`;
  const { chunk } = await client.get<{ chunk: readonly Message[] }>(path);
  const messages = chunk.filter(({ type, event_id: id }) => type === "m.room.message" && !before.has(id));
  return messages.map((event) => event.event_id);
}

describe("a room that is joined by two processes at once", () => {
  it("has one resync, and takes what comes by both of them once", async () => {
    const urls = fleet.serves.map(({ clientUrl }) => clientUrl);
    const [here = "", there = ""] = urls;
    const alice = await addUser(fleet.settings, here, "alice");
    const aliceThere = httpClient(there, alice.userId, alice.accessToken);
    const bob = await addUser(fleet.settings, there, "bob");
    const room = resident.hostRoom({ members: 300, servers: 10 });
    const { roomId } = room;
    const before = new Set(room.events.keys());
    // No join is answered before all of them have asked.
    const letGo = resident.trouble({ kind: "hold", at: "send_join" });
    const joining = [alice, aliceThere, bob].map((client) => joinVia(client, room, resident));
    await eventually(() => {
      const asked = resident.front.requests.filter(({ endpoint }) => endpoint === "send_join");
      return asked.length === joining.length ? true : undefined;
    });
    letGo();
    await Promise.all(joining);

    const saying = [alice, aliceThere, bob].map((client) => client.say(roomId, "here I am"));
    const said = (await Promise.all(saying)) as EventId[];
    for (const count of [1, 2]) {
      const sent = await resident.sendMessage(room, resident.founder, `welcome ${count}`, { push: false });
      // The same event by one transaction to each process.
      for (const serve of fleet.serves) {
        fleet.routeTo(serve);
        const [result] = await resident.deliver(room, [sent.eventId]);
        expect(result).toMatchObject({ status: 200, body: { pdus: { [sent.eventId]: {} } } });
      }
      said.push(sent.eventId);
    }
    await untilComplete(fleet.settings, room, { output: fleet.output });

    for (const eventId of said) await eventually(() => (room.events.has(eventId) ? true : undefined));
    for (const client of [alice, aliceThere, bob]) {
      expect((await messagesSeen(client, roomId, before)).toSorted()).toEqual(said.toSorted());
      expectEqualStates(await client.fullState(roomId), resident.fullState(room));
    }
    const range = { from: 0n, to: await currentStreamPosition(database.pool) };
    expect((await unPartialStatedRooms(database.pool, range)).map((row) => row.roomId)).toEqual([roomId]);
    const events = (await unPartialStatedEvents(database.pool, range)).map((row) => row.eventId);
    expect(new Set(events).size).toBe(events.length);
    expect(events).toEqual(expect.arrayContaining(said));
  });
});
