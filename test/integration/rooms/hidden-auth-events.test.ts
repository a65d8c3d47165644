import { afterAll, describe, expect, it } from "vitest";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { startResident } from "../../resident/resident.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar } from "../../support/in-process-sidecar.ts";

const database = await openTestDatabase();
const resident = await startResident({ fronts: 2 });
const sidecar = await startInProcessSidecar(database, { notaries: [resident.serverName], discovers: false });
afterAll(async () => {
  await sidecar.close();
  await resident.close();
});

const [, hiding] = resident.fronts;
if (hiding === undefined) throw new Error("the resident has one front only");

describe("an event whose sender hides its auth events", () => {
  it("waits, and other servers of the room are asked for them", async () => {
    const { ctx, userId, serverName } = sidecar;
    const room = resident.hostRoom({ members: 5, servers: 2, label: "hidden auth events" });
    await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
    const sender = resident.joinedMembers(room).find((user) => user !== resident.founder && user.startsWith("@member"));
    if (sender === undefined) throw new Error("the room has no member");
    const endTrouble = resident.trouble({ kind: "refuse", status: 403 }, hiding);

    const sending = { origin: hiding.serverName, to: [serverName] };
    const { eventId } = await resident.sendMessage(room, sender, "who am I?", sending);
    expect(await loadEvent(database.pool, eventId)).toBeUndefined();

    for (let round = 1; round <= 3; round += 1) {
      await receiveWaitingPdus({ ...ctx, now: () => Date.now() + round * 600_000 });
    }
    endTrouble();
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, outlier: false });
  });
});
