import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { insertPartialRoom } from "../../../src/storage/partial-state.ts";
import { loadResyncStateIds, saveResyncStateIds } from "../../../src/storage/resync-state-ids.ts";
import { addWaitingPdu, countWaitingPdus, settleWaitingPdu } from "../../../src/storage/waiting-pdus.ts";
import { openTestDatabase } from "../../support/database.ts";
import { anEvent, aStoredRoom } from "../../support/stored-room.ts";

const database = await openTestDatabase();
const { pool } = database;

/** An event that waits, with what a server told of the state at its prev_event, and at another event. */
async function aRoomThatWaits(
  name: string,
): Promise<{ roomId: RoomId; told: EventId; other: EventId; settle(): Promise<void> }> {
  const roomId = await aStoredRoom(database);
  const told: EventId = `$${name}-told`;
  const other: EventId = `$${name}-other`;
  const event = anEvent(roomId, `$${name}`, { prev_events: [told] });
  const { eventId, pdu } = event;
  await addWaitingPdu(pool, { eventId, roomId, origin: "a.org", pdu, reason: "missing-prev-events", receivedAt: 1 });
  for (const id of [told, other]) {
    const answer = { roomId, eventId: id, serverName: "a.org", stateEventIds: ["$s" as const], authEventIds: [] };
    await saveResyncStateIds(pool, answer);
  }
  return { roomId, told, other, settle: async () => await settleWaitingPdu(pool, event, 2) };
}

describe("settleWaitingPdu", () => {
  it("forgets with the event what was told of the states that it builds on", async () => {
    const { roomId, told, other, settle } = await aRoomThatWaits("full");
    await settle();
    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await loadResyncStateIds(pool, roomId, told)).toBeUndefined();
    expect(await loadResyncStateIds(pool, roomId, other)).toBeDefined();
  });

  it("keeps what a resync may work with", async () => {
    const { roomId, told, settle } = await aRoomThatWaits("partial");
    await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: "a.org", deviceListsStreamId: 0n });
    await settle();
    expect(await loadResyncStateIds(pool, roomId, told)).toBeDefined();
  });
});
