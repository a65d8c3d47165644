import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { membershipOf } from "../../../src/storage/memberships.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import type { Draft } from "../../resident/compose-event.ts";
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

async function enter(prepare?: (room: HostedRoom) => Promise<void>): Promise<Entered> {
  rooms += 1;
  const user = await api.register(`user${rooms}`);
  const room = resident.hostRoom({ members: 20 + rooms });
  await prepare?.(room);
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

describe("the removal of the last of our users, whose past the room's servers refuse us", () => {
  const MODERATOR: UserId = "@quiet-moderator:server-001.rooms.test";

  /** The moderator has done nothing yet, so that no auth chain names their membership. */
  async function appoint(room: HostedRoom): Promise<void> {
    await resident.join(room, MODERATOR, { push: false });
    const content = { users: { [resident.founder]: 100, [MODERATOR]: 50 }, kick: 50, ban: 50 };
    await resident.sendState(room, { type: "m.room.power_levels", content }, { push: false });
  }

  function removal(userId: UserId, membership: string, sender: UserId = MODERATOR): Draft {
    return { sender, type: "m.room.member", stateKey: userId, content: { membership } };
  }

  async function standingOf(user: TestClient, room: HostedRoom): Promise<string | undefined> {
    return (await membershipOf(database.pool, room.roomId, user.userId))?.membership;
  }

  it.each(["leave", "ban"])("is taken from a moderator whose own membership we lack: %s", async (membership) => {
    const { user, room, joinEventId } = await enter(appoint);
    const { next_batch: since } = await user.sync({ filter: LAZY });

    const { eventId, results } = await resident.send(room, removal(user.userId, membership));

    expect(results).toMatchObject([{ status: 200, body: { pdus: { [eventId]: {} } } }]);
    expect(await standingOf(user, room)).toBe(membership);
    const { rooms: told } = await user.sync({ filter: LAZY, since });
    expect(told.leave[room.roomId].timeline.events).toMatchObject([{ event_id: eventId, content: { membership } }]);
    await expect.poll(() => sidecar.woken).toContain(room.roomId);
    expect(await driveResync(api.ctx, room.roomId, joinEventId)).toBe("left");
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(0);
  });

  it("is taken where events before it are missing, and the room can be joined again", async () => {
    const { user, room, joinEventId } = await enter(appoint);
    await resident.sendMessage(room, resident.founder, "missed", { push: false });
    await resident.send(room, removal(user.userId, "leave"));
    expect(await standingOf(user, room)).toBe("leave");
    expect(await driveResync(api.ctx, room.roomId, joinEventId)).toBe("left");

    const { eventId } = await join(user.userId, room);

    expect(await driveResync(api.ctx, room.roomId, eventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(await standingOf(user, room)).toBe("join");
  });

  it("is taken in a room that we know in full, too", async () => {
    const { user, room, joinEventId } = await enter(appoint);
    await driveResync(api.ctx, room.roomId, joinEventId);
    await resident.sendMessage(room, resident.founder, "missed", { push: false });
    await resident.send(room, removal(user.userId, "leave"));
    expect(await standingOf(user, room)).toBe("leave");
  });

  it("is not taken while the room's servers still show us our join", async () => {
    const { user, room } = await enter(appoint);
    const key = stateKeyOf("m.room.member", MODERATOR);
    const forEvent = resident.fullState(room).get(key) as EventId;
    const hidden = resident.trouble({ kind: "refuse", status: 404, at: ["event", "event_auth"], forEvent });

    // The resident itself knows nothing of it.
    const { event } = await resident.send(room, removal(user.userId, "leave"), { keep: false, push: false });
    await resident.sendPdus(room, [event.pdu]);

    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(1);
    expect(await standingOf(user, room)).toBe("join");
    hidden();
  });

  it("is not taken where a server says 403 for knowing the room only in part itself", async () => {
    const { user, room } = await enter(appoint);
    const unable = resident.trouble({
      kind: "refuse",
      status: 403,
      errcode: "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE",
      at: ["event", "event_auth"],
    });

    const { event } = await resident.send(room, removal(user.userId, "leave"), { keep: false, push: false });
    await resident.sendPdus(room, [event.pdu]);

    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(1);
    expect(await standingOf(user, room)).toBe("join");
    unable();
  });

  it("is not taken from one who may not do it, whatever servers say", async () => {
    const { user, room } = await enter(appoint);
    const refusing = resident.trouble({
      kind: "refuse",
      status: 403,
      errcode: "M_FORBIDDEN",
      at: ["event", "event_auth"],
    });
    const nobody: UserId = "@member-00007:server-002.rooms.test";

    await resident.send(room, removal(user.userId, "leave", nobody), { keep: false, evenIfRejected: true });

    expect(await standingOf(user, room)).toBe("join");
    refusing();
  });

  it("is not taken while another of our users is in the room, who can be told of its past", async () => {
    const { user, room } = await enter(appoint);
    await join(`@bob-${rooms}:${sidecar.serverName}`, room);
    const { eventId } = await resident.send(room, removal(user.userId, "leave"));
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
    expect(await standingOf(user, room)).toBe("leave");
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
