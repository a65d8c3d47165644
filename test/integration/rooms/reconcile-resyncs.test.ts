import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RoomId } from "../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { reconcileResyncs } from "../../../src/rooms/upkeep/reconcile-resyncs.ts";
import { insertPartialRoom } from "../../../src/storage/partial-state.ts";
import { storeResyncControl } from "../../../src/storage/resync-control.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar, type InProcessSidecar } from "../../support/in-process-sidecar.ts";
import { anEvent, aStoredRoom, storeInTimeline } from "../../support/stored-room.ts";

const database = await openTestDatabase();
let sidecar: InProcessSidecar;

beforeAll(async () => {
  sidecar = await startInProcessSidecar(database);
});
afterAll(() => sidecar.close());

async function aPartialRoom(): Promise<RoomId> {
  const roomId = await aStoredRoom(database);
  const join = anEvent(roomId, `$join-of-${roomId}`);
  await storeInTimeline(database, join);
  const deviceListsStreamId = 0n;
  await insertPartialRoom(database.pool, {
    roomId,
    joinEventId: join.eventId,
    joinedVia: "x.org",
    deviceListsStreamId,
  });
  return roomId;
}

describe("reconcileResyncs", () => {
  it("does not start a resync that is cancelled while another is started", async () => {
    const rooms = [await aPartialRoom(), await aPartialRoom()];
    const started: RoomId[] = [];
    const start = async (roomId: RoomId): Promise<void> => {
      started.push(roomId);
      for (const other of rooms.filter((one) => one !== roomId)) {
        await storeResyncControl(database, { roomId: other, wish: "cancelled", by: "root", at: 0, why: "" });
      }
    };
    const ctx: RoomsContext = { ...sidecar.ctx, resyncs: { ...sidecar.ctx.resyncs, start } };
    expect(await reconcileResyncs(ctx)).toEqual({ started: 1 });
    expect(started).toHaveLength(1);
  });
});
