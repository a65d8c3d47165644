import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Sending, Sent } from "../../resident/resident.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi, type TestClient } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const api = await startLoopbackClientApi(database, sidecar.ctx);

const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });

let rooms = 0;

interface Entered {
  readonly user: TestClient;
  readonly room: HostedRoom;
  readonly joinEventId: EventId;
}

async function enter(): Promise<Entered> {
  rooms += 1;
  const user = await api.register(`user${rooms}`);
  const room = resident.hostRoom({ members: 20 + rooms });
  const { eventId } = await join(user.userId, room);
  return { user, room, joinEventId: eventId };
}

async function join(userId: UserId, { roomId }: HostedRoom): Promise<{ readonly eventId: EventId }> {
  return await joinRoom(api.ctx, { userId, roomId, via: [resident.serverName] });
}

type Removal = (room: HostedRoom, userId: UserId, sending?: Sending) => Promise<Sent>;
const removals: readonly (readonly [string, string, Removal])[] = [
  ["kick", "leave", resident.kick],
  ["ban", "ban", resident.ban],
];

describe.each(removals)("a %s from outside, of a user in a partial room", (kind, membership, remove) => {
  it.each([
    ["with lazy loading", { filter: LAZY }],
    ["without, which has not shown the room yet", {}],
  ])("is told in the next sync %s", async (_how, query) => {
    const { user, room } = await enter();
    const { next_batch: since } = await user.sync(query);
    const waiting = user.sync({ ...query, since, timeout: "20000" });

    const { eventId } = await remove(room, user.userId);

    const { rooms: told, next_batch: next } = await waiting;
    const { events } = told.leave[room.roomId].timeline;
    expect(events.at(-1)).toMatchObject({ event_id: eventId, content: { membership }, sender: resident.founder });
    expect((await user.sync({ ...query, since: next })).rooms).toBeUndefined();
    expect((await user.ok("GET", "joined_rooms")).joined_rooms).toEqual([]);
    expect((await user.call("PUT", `rooms/${room.roomId}/send/m.room.message/x`, { body: {} })).status).toBe(403);
  });

  it("wakes the resync of the last of our users, which ends with nothing left partial", async () => {
    const { user, room, joinEventId } = await enter();

    await remove(room, user.userId);

    await expect.poll(() => sidecar.woken).toContain(room.roomId);
    expect(await driveResync(api.ctx, room.roomId, joinEventId)).toBe("left");
    expect(await partialRoom(database.pool, room.roomId)).toBeUndefined();
  });

  it("leaves the resync to another of our users who is still there", async () => {
    const { user, room, joinEventId } = await enter();
    const bob: UserId = `@bob-${rooms}:${sidecar.serverName}`;
    await join(bob, room);

    await remove(room, user.userId);

    expect(await driveResync(api.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(sidecar.woken).not.toContain(room.roomId);
  });

  it(`${kind === "ban" ? "refuses" : "allows"} a re-join, before the resync has ended and after`, async () => {
    const { user, room, joinEventId } = await enter();
    await remove(room, user.userId);
    const rejoin = async (): Promise<number> => {
      const path = `join/${encodeURIComponent(room.roomId)}?via=${encodeURIComponent(resident.serverName)}`;
      const { status, body } = await user.call("POST", path, { body: {} });
      if (status !== 200) expect(body).toMatchObject({ errcode: "M_FORBIDDEN" });
      return status;
    };
    const expected = kind === "ban" ? 403 : 200;

    expect(await rejoin()).toBe(expected);

    const [left, still] = kind === "ban" ? (["left", undefined] as const) : (["superseded", room.roomId] as const);
    expect(await driveResync(api.ctx, room.roomId, joinEventId)).toBe(left);
    expect((await partialRoom(database.pool, room.roomId))?.roomId).toBe(still);
    expect(await rejoin()).toBe(expected);
  });
});

describe("a ban that we can't see", () => {
  it("refuses the re-join of a user who had left, though nobody of ours is in the room", async () => {
    const { user, room, joinEventId } = await enter();
    await user.ok("POST", `rooms/${encodeURIComponent(room.roomId)}/leave`, { body: {} });
    await resident.waitForEvent((event) => event.roomId === room.roomId && event.pdu.content["membership"] === "leave");
    await driveResync(api.ctx, room.roomId, joinEventId);
    await resident.ban(room, user.userId, { push: false });

    await expect(join(user.userId, room)).rejects.toMatchObject({ status: 403, errcode: "M_FORBIDDEN" });
  });
});
