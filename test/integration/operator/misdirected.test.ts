import { describe, expect, it } from "vitest";
import { runCli } from "../../../src/main/cli.ts";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { createOperatorRouter } from "../../../src/operator/router.ts";
import { insertMisdirectedEvents } from "../../../src/storage/misdirected-events.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import { aRoomsContext } from "../../support/loopback-federation.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const TOKEN = "the-operators-own-token";
const FOUND_AT = 1_700_000_000_000;

const database = await openTestDatabase();
const workflows = {
  standing: async () => ({ state: "none" }) as const,
  signalRetry: async () => false,
  signalPreferServer: async () => false,
  link: () => undefined,
};
const router = createOperatorRouter({ ...aRoomsContext(database), workflows }, TOKEN);
const api = await startLoopbackClientApi(database, { extraRouters: [router] });

/** A room that is complete, of which this many of our events went to each of the servers, which were not in it. */
async function aRoomWith(counts: Readonly<Record<string, number>>): Promise<{ roomId: RoomId; ids: EventId[] }> {
  const roomId = await aStoredRoom(database);
  const ids: EventId[] = [];
  for (let number = 0; number < Math.max(0, ...Object.values(counts)); number += 1) {
    const event = anEvent(roomId, `$${number}-in-${roomId}`);
    await storeInTimeline(database, event);
    ids.push(event.eventId);
  }
  const found = Object.entries(counts).flatMap(([server, count]) =>
    ids.slice(-count).map((eventId) => ({ eventId, server })),
  );
  await insertMisdirectedEvents(database.pool, roomId, { found, at: FOUND_AT });
  return { roomId, ids };
}

async function misdirected(roomId: string, token = TOKEN): Promise<[number, unknown]> {
  const answer = await fetch(`${api.url}/_fastjoin/v1/resyncs/${encodeURIComponent(roomId)}/misdirected`, {
    headers: { authorization: `Bearer ${token}` },
  });
  return [answer.status, await answer.json()];
}

async function show(roomId: string, ...options: readonly string[]): Promise<string> {
  let text = "";
  const env = {
    FASTJOIN_SERVER_NAME: "us.example",
    FASTJOIN_CLIENT_LISTEN: new URL(api.url).host,
    FASTJOIN_FEDERATION_TLS: "off",
    FASTJOIN_OPERATOR_TOKEN: TOKEN,
    FASTJOIN_DATA_DIR: "/nonexistent",
  };
  const line = { env, write: (more: string) => void (text += more), now: () => 0 };
  expect(await runCli(["show", roomId, ...options], line)).toBe(0);
  return text;
}

describe("the operator's list of servers that were sent events without being in the room", () => {
  it("names each with its events, also when the room is complete", async () => {
    const { roomId, ids } = await aRoomWith({ "left.example": 2, "gone.example": 1 });
    const servers = [
      { server: "gone.example", count: 1, eventIds: ids.slice(-1), foundAt: FOUND_AT },
      { server: "left.example", count: 2, eventIds: ids, foundAt: FOUND_AT },
    ];
    expect(await misdirected(roomId)).toEqual([200, { roomId, servers }]);
  });

  it("counts all events, and names the newest hundred", async () => {
    const { roomId, ids } = await aRoomWith({ "left.example": 103 });
    expect(await misdirected(roomId)).toMatchObject([200, { servers: [{ count: 103, eventIds: ids.slice(3) }] }]);
  });

  it("is for the operator alone, and of rooms that we hold", async () => {
    const { roomId } = await aRoomWith({});
    expect(await misdirected(roomId)).toEqual([200, { roomId, servers: [] }]);
    expect((await misdirected(roomId, "some other token"))[0]).toBe(401);
    expect(await misdirected("!nowhere:x.org")).toMatchObject([404, { errcode: "M_NOT_FOUND" }]);
  });

  it("is shown by the command line, where there are any", async () => {
    const { roomId, ids } = await aRoomWith({ "left.example": 2 });
    expect(await show(roomId)).toContain(
      `sent to servers that were not in the room:\n            left.example: 2 events, the last ${ids.at(-1)}\n`,
    );
    expect(JSON.parse(await show(roomId, "--json"))).toMatchObject({ misdirected: [{ server: "left.example" }] });
    const { roomId: other } = await aRoomWith({});
    expect(await show(other)).not.toContain("not in the room");
  });
});
