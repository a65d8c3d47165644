import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { membershipOf } from "../../../src/storage/memberships.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const { userId, ctx } = sidecar;
const bob: UserId = `@bob:${sidecar.serverName}`;

async function isInTimeline(eventId: EventId): Promise<boolean> {
  return (await loadEvent(database.pool, eventId))?.outlier === false;
}

describe("a second local join that builds on events which we lack", () => {
  it("has them asked for, and leaves no older event a forward extremity", async () => {
    const room = resident.hostRoom({ members: 260 });
    const { roomId } = room;
    const via = [resident.serverName];
    const { eventId: joinEventId } = await joinRoom(ctx, { userId, roomId, via });
    const missed = [];
    for (const text of ["one", "two", "three"]) {
      missed.push(await resident.sendMessage(room, resident.founder, text, { push: false }));
    }

    const { eventId, partial } = await joinRoom(ctx, { userId: bob, roomId, via });

    expect(partial).toBe(true);
    for (const sent of missed) await expect.poll(() => isInTimeline(sent.eventId)).toBe(true);
    expect(await forwardExtremities(database.pool, roomId)).toEqual([eventId]);
    expect(await driveResync(ctx, roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(roomId)).toEqual(resident.fullState(room));
  });

  it("leaves our first user in the room, also when the second one is kicked", async () => {
    const room = resident.hostRoom({ members: 20, label: "a second user is kicked" });
    const { roomId } = room;
    const via = [resident.serverName];
    const { eventId: joinEventId } = await joinRoom(ctx, { userId, roomId, via });
    await resident.sendMessage(room, resident.founder, "you don't see this", { push: false });
    await joinRoom(ctx, { userId: bob, roomId, via });
    await resident.kick(room, bob);

    expect((await membershipOf(database.pool, roomId, bob))?.membership).toBe("leave");
    expect(await membershipOf(database.pool, roomId, userId)).toMatchObject({
      membership: "join",
      eventId: joinEventId,
    });
    expect(await driveResync(ctx, roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(roomId)).toEqual(resident.fullState(room));
  });
});
