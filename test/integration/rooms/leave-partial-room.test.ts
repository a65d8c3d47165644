import { describe, expect, it } from "vitest";
import { authEventIds, prevEventIds } from "../../../src/matrix/event.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { finishResync } from "../../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../../src/rooms/resync/resync-repair-events.ts";
import { partialEventIds, partialRoom } from "../../../src/storage/partial-state.ts";
import type { Front } from "../../resident/front.ts";
import { eventOf, type HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

// Two servers that listen: the one that we join by, and another that is in the room too.
const { database, resident, sidecar } = await openScene({ fronts: 2 });
const { ctx, userId } = sidecar;
const [first, other] = resident.fronts as [Front, Front];

let members = 10;

async function enter(
  user: UserId = userId,
  { version = "11", within }: { readonly version?: RoomVersion; readonly within?: HostedRoom } = {},
): Promise<{ readonly room: HostedRoom; readonly joinEventId: EventId }> {
  members += 1;
  const room = within ?? resident.hostRoom({ members, version });
  const joined = await joinRoom(ctx, { userId: user, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId };
}

/** The leaves of a user that a server was sent. */
function leavesSentTo(front: Front, roomId: RoomId, user: UserId = userId): readonly JsonObject[] {
  const pdus = front.transactions.flatMap((transaction) => transaction.pdus as readonly JsonObject[]);
  return pdus.filter(
    (pdu) =>
      pdu["room_id"] === roomId &&
      pdu["state_key"] === user &&
      (pdu["content"] as JsonObject)["membership"] === "leave",
  );
}

async function untilTold(front: Front, roomId: RoomId, user: UserId = userId): Promise<void> {
  await expect.poll(() => leavesSentTo(front, roomId, user).length).toBe(1);
}

const typesOf = (room: HostedRoom, ids: readonly EventId[]): readonly unknown[] =>
  ids.map((id) => eventOf(room, id)?.pdu.type).toSorted();

describe("the leave of a joined user from a partial room", () => {
  it.each(["1", "6", "11", "12"] as const)(
    "is accepted by other servers for the join among its auth events, in room version %s",
    async (version) => {
      const { room, joinEventId } = await enter(userId, { version });

      await leaveRoom(ctx, { userId, roomId: room.roomId, reason: "enough" });

      const { pdu, rejected, eventId } = await resident.waitForEvent(
        (event) => event.roomId === room.roomId && event.pdu.content["membership"] === "leave",
      );
      expect(rejected).toBe(false);
      expect(pdu).toMatchObject({ sender: userId, state_key: userId, content: { reason: "enough" } });
      expect(authEventIds(pdu)).toContain(joinEventId);
      const create = version === "12" ? [] : ["m.room.create"];
      expect(typesOf(room, authEventIds(pdu))).toEqual([...create, "m.room.member", "m.room.power_levels"]);
      expect(resident.fullState(room).values()).toContain(eventId);
      expect(resident.membership(room, userId)).toBe("leave");
    },
  );

  it("waits for no server and not for Temporal, and is sent to all known servers at once", async () => {
    const { room } = await enter();
    const at = ["make_leave", "send_leave", "state", "state_ids", "event", "event_auth", "get_missing_events"] as const;
    const hanging = resident.fronts.map((front) => resident.trouble({ kind: "hang", at }, front));
    const wake = (): Promise<void> => new Promise(() => {});
    const without: RoomsContext = { ...ctx, resyncs: { ...ctx.resyncs, wake } };

    await leaveRoom(without, { userId, roomId: room.roomId });

    for (const front of resident.fronts) await untilTold(front, room.roomId);
    for (const ended of hanging) ended();
    const asked = resident.fronts.flatMap((front) => front.requests.map(({ endpoint }) => endpoint));
    expect(asked).toContain("send_join");
    expect(asked).not.toContain("make_leave");
    expect(asked).not.toContain("send_leave");
  });

  it("reaches a server that was down when that is back, though nothing of the room is partial any more", async () => {
    const { room, joinEventId } = await enter();
    await other.close();
    await leaveRoom(ctx, { userId, roomId: room.roomId });
    await untilTold(first, room.roomId);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("left");
    expect(leavesSentTo(other, room.roomId)).toEqual([]);

    await other.listen();

    const told = async (): Promise<number> => {
      // Each time: an attempt that was under way may still fail and be waited after.
      await ctx.federation.noteServerAlive(other.serverName);
      return leavesSentTo(other, room.roomId).length;
    };
    await expect.poll(told, { timeout: 20_000, interval: 200 }).toBe(1);
  });

  it("names the newest membership after a change of the user's name", async () => {
    const { room } = await enter();
    const content = { membership: "join", displayname: "Alice the second" };
    const renamed = await createEvent(ctx, {
      roomId: room.roomId,
      sender: userId,
      type: "m.room.member",
      stateKey: userId,
      content,
    });

    await leaveRoom(ctx, { userId, roomId: room.roomId });

    await untilTold(first, room.roomId);
    const [leave] = leavesSentTo(first, room.roomId);
    expect(leave?.["auth_events"]).toContain(renamed.eventId);
    expect(resident.membership(room, userId)).toBe("leave");
  });

  it("leaves the room and its resync to another of our users", async () => {
    const { room, joinEventId } = await enter();
    const bob: UserId = `@bob-${members}:${sidecar.serverName}`;
    await enter(bob, { within: room });

    await leaveRoom(ctx, { userId, roomId: room.roomId });

    await untilTold(other, room.roomId);
    expect((await partialRoom(database.pool, room.roomId))?.joinEventId).toBe(joinEventId);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(sidecar.woken).not.toContain(room.roomId);
    await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
    await untilTold(other, room.roomId, bob);
  });

  it("ends the resync with the last of several users, and wakes it for that", async () => {
    const { room, joinEventId } = await enter();
    const bob: UserId = `@bob-${members}:${sidecar.serverName}`;
    await enter(bob, { within: room });

    await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
    await leaveRoom(ctx, { userId, roomId: room.roomId });

    await expect.poll(() => sidecar.woken.filter((one) => one === room.roomId)).toHaveLength(1);
    for (const user of [userId, bob]) await untilTold(other, room.roomId, user);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("left");
  });
});

describe("a re-join before the old resync has ended", () => {
  it("gets a resync of its own, and the old one can do nothing any more", async () => {
    const { room, joinEventId: old } = await enter();
    const step = await nextResyncStep(ctx, { roomId: room.roomId, joinEventId: old });
    if (step.kind !== "fetch") throw new Error(`the next step is ${step.kind}`);
    await leaveRoom(ctx, { userId, roomId: room.roomId });
    await untilTold(first, room.roomId);

    const { joinEventId } = await enter(userId, { within: room });

    const ofRoom = sidecar.wanted.filter((one) => one.roomId === room.roomId);
    expect(ofRoom.map((one) => one.joinEventId)).toEqual([old, joinEventId]);
    const superseded = { kind: "superseded" };
    const target = { roomId: room.roomId, joinEventId: old };
    const [eventId] = step.eventIds as [EventId];
    expect(await nextResyncStep(ctx, target)).toEqual(superseded);
    expect(await fetchMissingState(ctx, { ...target, eventId, server: resident.serverName })).toEqual(superseded);
    expect(await repairEvents(ctx, target, [joinEventId])).toEqual(superseded);
    expect(await finishResync(ctx, target)).toEqual(superseded);
    expect(await partialEventIds(database.pool, [old, joinEventId])).toEqual(new Set([joinEventId]));
    expect((await partialRoom(database.pool, room.roomId))?.joinEventId).toBe(joinEventId);

    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("is built on the leave, and knows the room by the new answer alone", async () => {
    const { room } = await enter();
    await leaveRoom(ctx, { userId, roomId: room.roomId });
    await untilTold(first, room.roomId);
    const hiding = resident.trouble({ kind: "lie", lie: "hide-server", server: other.serverName, at: "send_join" });

    const { joinEventId } = await enter(userId, { within: room });

    hiding();
    const join = eventOf(room, joinEventId);
    const before = join === undefined ? [] : prevEventIds(join.pdu);
    expect(before.map((id) => eventOf(room, id)?.pdu.content["membership"])).toEqual(["leave"]);
    const { rows } = await database.pool.query<{ server_name: string }>(
      "SELECT server_name FROM partial_state_rooms_servers WHERE room_id = $1",
      [room.roomId],
    );
    expect(rows.map((row) => row.server_name)).not.toContain(other.serverName);
    await leaveRoom(ctx, { userId, roomId: room.roomId });
  });
});
