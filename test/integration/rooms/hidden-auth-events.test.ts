import { afterAll, describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { fetchEvents } from "../../../src/rooms/fetch/fetch-events.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { madeUpId } from "../../resident/forge.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { startResident } from "../../resident/resident.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar } from "../../support/in-process-sidecar.ts";

const database = await openTestDatabase();
const resident = await startResident({ fronts: 8 });
const sidecar = await startInProcessSidecar(database, { notaries: [resident.serverName], discovers: false });
afterAll(async () => {
  await sidecar.close();
  await resident.close();
});

const [, hiding, ...others] = resident.fronts;
if (hiding === undefined) throw new Error("the resident has one front only");

/** Somebody whose membership a light join does not tell us. */
function aMemberOf(room: HostedRoom): UserId {
  const member = resident.joinedMembers(room).find((user) => user.startsWith("@member"));
  if (member === undefined) throw new Error("the room has no member");
  return member;
}

async function lookAgain(round: number): Promise<void> {
  const { ctx } = sidecar;
  await receiveWaitingPdus({ ...ctx, now: () => Date.now() + round * 600_000 });
}

describe("an event whose sender hides its auth events", () => {
  it("waits, and other servers of the room are asked for them", async () => {
    const { ctx, userId, serverName } = sidecar;
    const room = resident.hostRoom({ members: 5, servers: 2, label: "hidden auth events" });
    await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
    resident.trouble({ kind: "refuse", status: 403 }, hiding);

    const sending = { origin: hiding.serverName, to: [serverName] };
    const { eventId } = await resident.sendMessage(room, aMemberOf(room), "who am I?", sending);
    expect(await loadEvent(database.pool, eventId)).toBeUndefined();

    for (let round = 1; round <= 3; round += 1) await lookAgain(round);
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, outlier: false });
    resident.clearTrouble(hiding);
  });

  it("waits for the one server that has them, however many have not", async () => {
    const { ctx, userId, serverName } = sidecar;
    const room = resident.hostRoom({ members: 5, servers: 2, label: "auth events that one server has" });
    await joinRoom(ctx, { userId, roomId: room.roomId, via: [hiding.serverName] });
    const knowing = others.toSorted((a, b) => (a.serverName < b.serverName ? -1 : 1)).at(-1);
    for (const front of resident.fronts)
      if (front !== knowing) resident.trouble({ kind: "refuse", status: 403 }, front);

    const sending = { origin: hiding.serverName, to: [serverName] };
    const { eventId } = await resident.sendMessage(room, aMemberOf(room), "who am I?", sending);
    for (let round = 1; round <= 6; round += 1) await lookAgain(round);
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, outlier: false });
  });
});

describe("fetchEvents", () => {
  it("fetches what an event lacks though the server has none of another", async () => {
    for (const front of resident.fronts) resident.clearTrouble(front);
    const { ctx, userId } = sidecar;
    const room = resident.hostRoom({ members: 5, servers: 2, label: "one event is unknown" });
    const { roomId, rules } = room;
    await joinRoom(ctx, { userId, roomId, via: [resident.serverName] });
    const { eventId } = await resident.sendMessage(room, aMemberOf(room), "who am I?", { push: false });
    const request = { roomId, rules, server: resident.serverName, eventIds: [madeUpId("unknown"), eventId] };
    await expect(fetchEvents(ctx, request)).rejects.toMatchObject({ kind: "refused", status: 404 });
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: true, rejection: null });
  });
});
