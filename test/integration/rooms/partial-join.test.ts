import { describe, expect, it } from "vitest";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { countPartialEvents, partialRoom, partialRoomServers } from "../../../src/storage/partial-state.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

describe("joinRoom", () => {
  for (const version of ROOM_VERSIONS) {
    it(`joins a room of version ${version} partially, and the resync makes its state the resident's`, async () => {
      const room = resident.hostRoom({ version });
      const { userId, ctx } = sidecar;

      const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });

      expect(joined.partial).toBe(true);
      expect(await countPartialEvents(database.pool, room.roomId)).toBe(1);
      expect(await partialRoomServers(database.pool, room.roomId)).toContain(resident.serverName);
      expect(sidecar.wanted).toContainEqual({ roomId: room.roomId, joinEventId: joined.eventId });

      expect(await driveResync(ctx, room.roomId, joined.eventId)).toBe("completed");

      expect(await partialRoom(database.pool, room.roomId)).toBeUndefined();
      expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    });
  }

  it("lets messages pass both ways while the room is partial", async () => {
    const room = resident.hostRoom({ members: 60 });
    const { userId, ctx } = sidecar;
    const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });

    const arrived = resident.waitForEvent((event) => event.pdu.content["body"] === "hello from us");
    const ours = await createEvent(ctx, {
      roomId: room.roomId,
      sender: userId,
      type: "m.room.message",
      content: { msgtype: "m.text", body: "hello from us" },
    });
    expect((await arrived).eventId).toBe(ours.eventId);
    const theirs = await resident.sendMessage(room, resident.founder, "hello from them");

    expect(theirs.results).toMatchObject([{ status: 200 }]);
    expect(await loadEvent(database.pool, theirs.eventId)).toMatchObject({ outlier: false, rejection: null });
    expect(await countPartialEvents(database.pool, room.roomId)).toBe(3);

    await driveResync(ctx, room.roomId, joined.eventId);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});
