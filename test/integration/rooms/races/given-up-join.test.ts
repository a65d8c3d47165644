import { describe, expect, it } from "vitest";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { joinRoom } from "../../../../src/rooms/join/join-room.ts";
import { receiveWaitingPdus } from "../../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { isJoinUnderWay } from "../../../../src/storage/joins-under-way.ts";
import { joinedRooms } from "../../../../src/storage/memberships.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { loadRoom } from "../../../../src/storage/rooms.ts";
import { countWaitingPdus } from "../../../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../../../resident/hosted-room.ts";
import { givingUpOnceLetIn } from "../../../support/impatient-join.ts";
import { completeResync, hostRoom, join, memberEventOf } from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";
import { eventually } from "../../../support/sidecar-process.ts";

const scene = await openScene({ fronts: 2 });
const { database, resident, sidecar } = scene;
const [first, second] = resident.fronts.map((front) => front.serverName) as [string, string];

/** Gives up on the first server's answer. */
function impatient(room: HostedRoom): RoomsContext {
  return givingUpOnceLetIn(sidecar.ctx, first, () => resident.membership(room, sidecar.userId) === "join");
}

/** The resident has let us in and holds its answer; we have gone. Its answer then finds nobody. */
async function joinInVain(room: HostedRoom): Promise<void> {
  const letGo = resident.trouble({ kind: "hold", at: "send_join" });
  await expect(
    joinRoom(impatient(room), { userId: sidecar.userId, roomId: room.roomId, via: [first] }),
  ).rejects.toMatchObject({ status: 502 });
  expect(resident.membership(room, sidecar.userId)).toBe("join");
  letGo();
  await eventually(() => {
    const asked = resident.front.requests.findLast(({ endpoint }) => endpoint === "send_join");
    return asked?.status === 0 ? true : undefined;
  });
}

describe("a send_join that is answered after we gave up", () => {
  it("leaves us outside: what the resident then sends is refused openly, and nothing of it is kept", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await joinInVain(room);

    const sent = await resident.sendMessage(room, resident.founder, "welcome");

    const [result] = sent.results;
    expect(result).toMatchObject({ status: 200 });
    expect(await loadEvent(database.pool, sent.eventId)).toBeUndefined();
    expect(await loadRoom(database.pool, roomId)).toBeUndefined();
    expect(await partialRoom(database.pool, roomId)).toBeUndefined();
    expect(await countWaitingPdus(database.pool, roomId)).toBe(0);
    expect(await isJoinUnderWay(database.pool, roomId)).toBe(false);
    expect(await joinedRooms(database.pool, sidecar.userId)).not.toContain(roomId);
  });

  it("does not stand in the way of a later join, which builds on the one that we never had", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await joinInVain(room);
    await resident.sendMessage(room, resident.founder, "is nobody there?");

    const { eventId } = await join(scene, sidecar.ctx, room);
    const after = await resident.sendMessage(room, resident.founder, "there you are");

    expect(await loadEvent(database.pool, after.eventId)).toMatchObject({ outlier: false, rejection: null });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
    expect(await memberEventOf(scene, roomId, sidecar.userId)).toBe(eventId);
  });

  it("is survived by the next server's, to which our first join is known", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const letGo = resident.trouble({ kind: "hold", at: "send_join" });
    const joined = await joinRoom(impatient(room), { userId: sidecar.userId, roomId, via: [first, second] });
    expect(await partialRoom(database.pool, roomId)).toMatchObject({ joinedVia: second, joinEventId: joined.eventId });

    // The first server's own event builds on both of our joins; it comes while the first is still unknown to us.
    const sent = await resident.sendMessage(room, resident.front.user, "twice welcome", { origin: first });
    letGo();

    await eventually(async () => {
      await receiveWaitingPdus(sidecar.ctx);
      return (await loadEvent(database.pool, sent.eventId))?.outlier === false ? true : undefined;
    });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: joined.eventId } });
  });
});
