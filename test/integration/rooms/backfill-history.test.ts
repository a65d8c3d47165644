import { describe, expect, it } from "vitest";
import { backfillHistory } from "../../../src/rooms/fetch/backfill-history.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { readMessages } from "../../../src/rooms/read/read-messages.ts";
import { timeline } from "../../../src/storage/timeline.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

async function enter(label: string): Promise<{ room: HostedRoom; joinEventId: `$${string}` }> {
  const room = resident.hostRoom({ members: 8, servers: 2, messages: 0, forks: 0, label });
  for (let count = 1; count <= 6; count += 1) {
    await resident.sendMessage(room, resident.founder, `before ${count}`, { push: false });
  }
  const { userId, ctx } = sidecar;
  const joined = await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId };
}

async function bodies(room: HostedRoom): Promise<readonly unknown[]> {
  const page = await readMessages(sidecar.ctx, {
    roomId: room.roomId,
    requester: { userId: sidecar.userId, deviceId: "D" },
    direction: "b",
    from: undefined,
    to: undefined,
    limit: 100,
    filter: {},
  });
  const chunk = page["chunk"] as readonly { type: string; content: { body?: unknown } }[];
  return chunk.filter((event) => event.type === "m.room.message").map((event) => event.content.body);
}

describe("backfillHistory", () => {
  it("gives a reader the messages from before the join, newest first, while the room is still partial", async () => {
    const { room, joinEventId } = await enter("history");
    const expected = ["before 6", "before 5", "before 4", "before 3", "before 2", "before 1"];
    expect(await bodies(room)).toEqual(expected);
    expect(await bodies(room)).toEqual(expected);

    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(await bodies(room)).toEqual(expected);
  });

  it("adds each event once, and ends at the create event", async () => {
    const { room } = await enter("whole history");
    for (let pages = 0; (await backfillHistory(sidecar.ctx, room.roomId)) > 0; pages += 1)
      expect(pages).toBeLessThan(5);
    const ids = (await timeline(database.pool, room.roomId, { direction: "forward", limit: 1000, hidden: true })).map(
      (event) => event.eventId,
    );
    expect(new Set(ids).size).toBe(ids.length);
    const accepted = [...room.events.values()].filter(({ event }) => !event.rejected);
    expect(ids).toEqual(expect.arrayContaining(accepted.map(({ event }) => event.eventId)));
  });

  it("gives what is known where no server has more", async () => {
    const { room } = await enter("no history");
    const refused = resident.trouble({ kind: "refuse", status: 403, at: "backfill" });
    expect(await bodies(room)).toEqual([]);
    refused();
  });
});
