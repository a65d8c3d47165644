import { Client, Connection, type WorkflowHandle } from "@temporalio/client";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import { openDatabase, type Database } from "../../src/storage/database.ts";
import { currentStreamPosition, unPartialStatedEvents, unPartialStatedRooms } from "../../src/storage/streams.ts";
import { listenForStream } from "../../src/storage/streams.ts";
import { resyncWorkflowId } from "../../workflows/contract.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { startResident, type Resident } from "../resident/resident.ts";
import { startFleet, type Fleet, type FleetProcess } from "../support/fleet.ts";
import { httpClient, type HttpClient } from "../support/http-client.ts";
import { addAlice, expectEqualStates, joinVia, untilComplete } from "../support/sidecar-scene.ts";
import { eventually } from "../support/sidecar-process.ts";

let resident: Resident;
let fleet: Fleet;
let database: Database;
let temporal: Client;
let alice: HttpClient;

beforeAll(async () => {
  resident = await startResident();
  fleet = await startFleet(resident, { serves: 2, workers: 2 });
  database = openDatabase(fleet.databaseUrl);
  temporal = new Client({ connection: await Connection.connect({ address: fleet.temporalAddress }) });
  alice = await addAlice(fleet.settings, both(fleet.serves)[0].clientUrl);
});
afterAll(async () => {
  await temporal.connection.close();
  await database.close();
  await fleet.close();
  await resident.close();
});

/** Two of each kind, as every test here needs them. */
function both<T>(list: readonly T[]): readonly [T, T] {
  const [one, other] = list;
  if (one === undefined || other === undefined) throw new Error("there are not two");
  return [one, other];
}

/** The same user by another process. */
function through(serve: FleetProcess, client: HttpClient): HttpClient {
  return httpClient(serve.clientUrl, client.userId, client.accessToken);
}

/** What another process hears of the two streams: pushed, and then read from the last position to the new one. */
async function followStreams(): Promise<{
  rooms: RoomId[];
  events: EventId[];
  caughtUp(): Promise<void>;
  stop(): Promise<void>;
}> {
  const rooms: RoomId[] = [];
  const events: EventId[] = [];
  let read = 0n;
  let turn: Promise<void> = Promise.resolve();
  const readUpTo = async (to: bigint): Promise<void> => {
    if (to <= read) return;
    const range = { from: read, to };
    rooms.push(...(await unPartialStatedRooms(database.pool, range)).map(({ roomId }) => roomId));
    events.push(...(await unPartialStatedEvents(database.pool, range)).map(({ eventId }) => eventId));
    read = to;
  };
  const stop = await listenForStream(database, (position) => {
    turn = turn.then(() => readUpTo(position));
  });
  return {
    rooms,
    events,
    stop,
    caughtUp: async () => {
      const until = await currentStreamPosition(database.pool);
      await eventually(async () => {
        await turn;
        return read >= until ? true : undefined;
      });
    },
  };
}

const PASSING = new Set(["age", "last_active_ago"]);

/** An answer without what only says how long ago something was. */
async function answerOf(client: HttpClient, path: string): Promise<unknown> {
  const text = JSON.stringify(await client.get(path));
  return JSON.parse(text, (key, value: unknown) => (PASSING.has(key) ? undefined : value));
}

function resyncOf(roomId: RoomId): WorkflowHandle {
  const serverName = fleet.settings.env["FASTJOIN_SERVER_NAME"] ?? "";
  return temporal.workflow.getHandle(resyncWorkflowId(serverName, roomId));
}

/** The worker that is at this room's fetch. */
async function workerAtFetch(roomId: RoomId): Promise<FleetProcess> {
  return eventually(async () => {
    const { raw } = await resyncOf(roomId).describe();
    const fetching = raw.pendingActivities?.find((one) => one.activityType?.name === "fetchMissingState");
    const identity = fetching?.lastWorkerIdentity ?? "";
    return fleet.workers.find((one) => identity.startsWith(`${one.pid()}@`));
  });
}

/** The worker that did the room's last step. */
async function workerAtEnd(roomId: RoomId): Promise<FleetProcess | undefined> {
  const { events = [] } = await resyncOf(roomId).fetchHistory();
  const started = (events ?? []).flatMap((event) => event.activityTaskStartedEventAttributes?.identity ?? []);
  return fleet.workers.find((one) => started.at(-1)?.startsWith(`${one.pid()}@`));
}

/** Syncs on until the room is there: in vain for a client that wants all members, before the room is whole. */
async function untilRoomIsThere(client: HttpClient, roomId: RoomId): Promise<object> {
  let since = "";
  for (;;) {
    // Longer than the test may take: a sync that nothing wakes fails it.
    const answer = await client.get<{ next_batch: string; rooms?: { join?: Record<string, object> } }>(
      `sync?timeout=600000${since}`,
    );
    const room = answer.rooms?.join?.[roomId];
    if (room !== undefined) return room;
    since = `&since=${encodeURIComponent(answer.next_batch)}`;
  }
}

/** Syncs on until these and no others type in the room. */
async function untilTyping(client: HttpClient, roomId: RoomId, userIds: readonly string[]): Promise<void> {
  const filter = encodeURIComponent(JSON.stringify({ room: { state: { lazy_load_members: true } } }));
  let since = "";
  for (let typists: readonly string[] | undefined; typists?.join() !== userIds.join();) {
    const answer = await client.get<{
      next_batch: string;
      rooms?: {
        join?: Record<string, { ephemeral?: { events: { type: string; content: { user_ids: string[] } }[] } }>;
      };
    }>(`sync?filter=${filter}&timeout=600000${since}`);
    const events = answer.rooms?.join?.[roomId]?.ephemeral?.events ?? [];
    typists = events.find(({ type }) => type === "m.typing")?.content.user_ids ?? typists;
    since = `&since=${encodeURIComponent(answer.next_batch)}`;
  }
}

describe("two serves and two workers", () => {
  it("agree on a room, through its partial state, the death of one of each, and its end", async () => {
    const [one, other] = both(fleet.serves);
    const aliceThere = through(other, alice);
    const streams = await followStreams();
    const reader = await followStreams();
    const room: HostedRoom = resident.hostRoom({ members: 1200, servers: 20 });
    const { roomId } = room;
    resident.trouble({ kind: "slow", bytesPerSecond: 30_000, at: "state" });

    await joinVia(alice, room, resident);
    const woken = untilRoomIsThere(aliceThere, roomId);

    const sent: string[] = [];
    for (const [serve, client] of [
      [one, alice],
      [other, aliceThere],
    ] as const) {
      fleet.routeTo(serve);
      sent.push(await client.say(roomId, `ours through ${serve.clientUrl}`));
      const { eventId } = await resident.sendMessage(room, resident.founder, `theirs through ${serve.clientUrl}`);
      await alice.sees(roomId, eventId);
      await aliceThere.sees(roomId, eventId);
      sent.push(eventId);
    }

    const atWork = await workerAtFetch(roomId);
    await atWork.kill();
    await one.kill();
    fleet.routeTo(other);
    sent.push(await aliceThere.say(roomId, "ours, with one half dead"));
    resident.clearTrouble();
    await untilComplete(
      {
        ...fleet.settings,
        env: { ...fleet.settings.env, FASTJOIN_CLIENT_LISTEN: other.clientUrl.replace("http://", "") },
      },
      room,
      { output: fleet.output },
    );
    expect(await woken).toHaveProperty("timeline");
    expect(await resyncOf(roomId).result()).toBe("completed");
    expect(await workerAtEnd(roomId)).toBe(fleet.workers.find((worker) => worker !== atWork));
    await Promise.all([one.start(), atWork.start()]);

    for (const client of [alice, aliceThere]) {
      expectEqualStates(await client.fullState(roomId), resident.fullState(room));
      for (const eventId of sent) await client.sees(roomId, eventId);
    }
    const inRoom = `rooms/${encodeURIComponent(roomId)}`;
    for (const path of [
      "sync?timeout=0",
      `${inRoom}/members`,
      `${inRoom}/joined_members`,
      `${inRoom}/messages?dir=b&limit=50`,
    ]) {
      expect(await answerOf(aliceThere, path)).toEqual(await answerOf(alice, path));
    }

    await streams.caughtUp();
    await reader.caughtUp();
    expect(streams.rooms).toEqual([roomId]);
    expect(new Set(streams.events).size).toBe(streams.events.length);
    expect(streams.events).toEqual(expect.arrayContaining(sent.slice(0, 4)));
    expect(reader.rooms).toEqual(streams.rooms);
    expect(reader.events).toEqual(streams.events);
    await streams.stop();
    await reader.stop();
  });

  it("show who types, whichever of them was told of it, and that they cease", async () => {
    const room = resident.hostRoom({ members: 20, label: "typing" });
    const { roomId } = room;
    const { user } = resident.front;
    await joinVia(alice, room, resident);
    for (const [told, shows] of [both(fleet.serves), both(fleet.serves.toReversed())]) {
      const watching = through(shows, alice);
      fleet.routeTo(told);
      for (const typing of [true, false]) {
        const content = { room_id: roomId, user_id: user, typing };
        const seen = untilTyping(watching, roomId, typing ? [user] : []);
        await resident.sendEdus(
          [fleet.settings.env["FASTJOIN_SERVER_NAME"] ?? ""],
          [{ edu_type: "m.typing", content }],
        );
        await seen;
      }
      const inRoom = `rooms/${encodeURIComponent(roomId)}/typing/${encodeURIComponent(alice.userId)}`;
      const seen = untilTyping(watching, roomId, [alice.userId]);
      await through(told, alice).put(inRoom, { typing: true, timeout: 3_000 });
      await seen;
      await untilTyping(watching, roomId, []);
    }
  });
});
