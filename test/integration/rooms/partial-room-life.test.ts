import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { createRoom } from "../../../src/rooms/send/create-room.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { beginJoin, isJoinUnderWay } from "../../../src/storage/joins-under-way.ts";
import { joinedRooms } from "../../../src/storage/memberships.ts";
import { countPartialEvents, partialRoom, partialRoomServers } from "../../../src/storage/partial-state.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { holdAtRequest } from "../../support/hold-point.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

let members = 100;

async function enter(userId: UserId = sidecar.userId): Promise<{ room: HostedRoom; joinEventId: EventId }> {
  members += 1;
  const room = resident.hostRoom({ members });
  const joined = await joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId };
}

describe("a second local join", () => {
  it("leaves the first resync, its servers and its way in alone", async () => {
    const { room, joinEventId } = await enter();
    const before = await partialRoom(database.pool, room.roomId);
    const servers = await partialRoomServers(database.pool, room.roomId);
    const bob: UserId = `@bob:${sidecar.serverName}`;

    const second = await joinRoom(sidecar.ctx, { userId: bob, roomId: room.roomId, via: [resident.serverName] });

    expect(second.partial).toBe(true);
    expect(await partialRoom(database.pool, room.roomId)).toEqual(before);
    expect(await partialRoomServers(database.pool, room.roomId)).toEqual(servers);
    expect(sidecar.wanted.filter((one) => one.roomId === room.roomId)).toHaveLength(1);
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(await joinedRooms(database.pool, bob)).toContain(room.roomId);
  });

  it("is refused to a user whose ban we can't see", async () => {
    members += 1;
    const room = resident.hostRoom({ members });
    const bob: UserId = `@banned:${sidecar.serverName}`;
    await resident.ban(room, bob, { push: false });
    await joinRoom(sidecar.ctx, { userId: sidecar.userId, roomId: room.roomId, via: [resident.serverName] });

    const second = joinRoom(sidecar.ctx, { userId: bob, roomId: room.roomId, via: [resident.serverName] });

    await expect(second).rejects.toMatchObject({ status: 403, errcode: "M_FORBIDDEN" });
  });
});

describe("a message with a gap before it", () => {
  it("has the gap filled from its sender", async () => {
    const { room, joinEventId } = await enter();
    const quiet = { push: false };
    const missed: EventId[] = [];
    for (let count = 0; count < 5; count += 1) {
      missed.push((await resident.sendMessage(room, resident.founder, `missed ${count}`, quiet)).eventId);
    }
    const { eventId } = await resident.sendMessage(room, resident.founder, "seen");

    for (const id of [...missed, eventId]) {
      expect(await loadEvent(database.pool, id)).toMatchObject({ outlier: false, rejection: null });
    }
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(0);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("waits where the sender fills nothing, and is accepted on the state that its prev_event had there", async () => {
    const { room, joinEventId } = await enter();
    const missed = await resident.sendState(
      room,
      { type: "m.room.topic", content: { topic: "missed" } },
      { push: false },
    );
    resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    const { eventId } = await resident.sendMessage(room, resident.founder, "seen");
    expect(await loadEvent(database.pool, eventId)).toBeUndefined();
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(1);

    await receiveWaitingPdus(sidecar.ctx);

    resident.clearTrouble();
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(0);
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
    expect((await sidecar.currentState(room.roomId)).values()).toContain(missed.eventId);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("leaveRoom", () => {
  it("leaves a partial room at once, and the resync ends with nothing of it left partial", async () => {
    const { room, joinEventId } = await enter();
    const told = resident.waitForEvent(
      (event) => event.pdu.sender === sidecar.userId && event.pdu.content["membership"] === "leave",
    );

    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId: room.roomId });

    expect((await told).pdu.state_key).toBe(sidecar.userId);
    expect(await nextResyncStep(sidecar.ctx, { roomId: room.roomId, joinEventId })).toEqual({ kind: "left" });
    expect(await partialRoom(database.pool, room.roomId)).toBeUndefined();
    expect(await countPartialEvents(database.pool, room.roomId)).toBe(0);
  });

  it("can be followed by a re-join, whose resync the older one can't finish", async () => {
    const { room, joinEventId: first } = await enter();
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId: room.roomId });
    await resident.waitForEvent((event) => event.pdu.content["membership"] === "leave" && event.roomId === room.roomId);

    const again = await joinRoom(sidecar.ctx, {
      userId: sidecar.userId,
      roomId: room.roomId,
      via: [resident.serverName],
    });

    expect(again.partial).toBe(true);
    expect(await nextResyncStep(sidecar.ctx, { roomId: room.roomId, joinEventId: first })).toEqual({
      kind: "superseded",
    });
    expect(await driveResync(sidecar.ctx, room.roomId, again.eventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("joinRoom", () => {
  it("keeps what arrives before its answer is stored", async () => {
    members += 1;
    const room = resident.hostRoom({ members });
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const joining = joinRoom(
      { ...sidecar.ctx, federation: held.federation },
      { userId: sidecar.userId, roomId: room.roomId, via: [resident.serverName] },
    );
    await held.reached;
    const early = await resident.sendMessage(room, resident.founder, "early", { to: [sidecar.serverName] });
    held.release();
    const joined = await joining;

    expect(early.results).toMatchObject([{ status: 200 }]);
    expect(joined.partial).toBe(true);
    // Once as what the join kept, once as what waits for its past.
    await receiveWaitingPdus(sidecar.ctx);
    await receiveWaitingPdus(sidecar.ctx);
    await driveResync(sidecar.ctx, room.roomId, joined.eventId);
    expect(await loadEvent(database.pool, early.eventId)).toMatchObject({ outlier: false, rejection: null });
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("leaves nothing waiting that a crash in the middle of it had kept", async () => {
    members += 1;
    const room = resident.hostRoom({ members });
    const { roomId } = room;
    const crashed = { roomId, userId: sidecar.userId, attempt: "crashed", since: Date.now() - 60 * 60_000 };
    await beginJoin(database.pool, crashed);
    const { results } = await resident.sendMessage(room, resident.founder, "lost?", { to: [sidecar.serverName] });
    expect(results).toMatchObject([{ status: 200 }]);
    expect(await countWaitingPdus(database.pool, roomId)).toBe(1);

    await receiveWaitingPdus(sidecar.ctx);

    expect(await countWaitingPdus(database.pool, roomId)).toBe(0);
    expect(await isJoinUnderWay(database.pool, roomId)).toBe(false);
  });

  it("takes a full answer as a full join that needs no resync", async () => {
    members += 1;
    const room = resident.hostRoom({ members });
    const full = resident.trouble({ kind: "full-join" });
    const joined = await joinRoom(sidecar.ctx, {
      userId: sidecar.userId,
      roomId: room.roomId,
      via: [resident.serverName],
    });
    full();
    expect(joined.partial).toBe(false);
    expect(await partialRoom(database.pool, room.roomId)).toBeUndefined();
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("a server that serves false events", () => {
  it("is told apart from one that merely lacks them", async () => {
    const { room, joinEventId } = await enter();
    const lying = resident.trouble({
      kind: "lie",
      lie: "bad-signature",
      type: "m.room.member",
      at: ["state", "event"],
    });
    const step = await nextResyncStep(sidecar.ctx, { roomId: room.roomId, joinEventId });
    if (step.kind !== "fetch") throw new Error(`the next step is ${step.kind}`);
    const [eventId] = step.eventIds as [EventId];
    const request = { roomId: room.roomId, joinEventId, eventId, server: resident.serverName };
    expect(await fetchMissingState(sidecar.ctx, request)).toMatchObject({ kind: "incomplete", provedFalse: true });
    lying();
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("a restricted room that we know in full", () => {
  it("is joined by a second user for whom one of ours can vouch", async () => {
    const open = resident.hostRoom({ members: 5, label: "the room that lets in" });
    const { userId, ctx, serverName } = sidecar;
    const bob: UserId = `@bob-vouched:${serverName}`;
    const via = [resident.serverName];
    for (const user of [userId, bob]) await joinRoom(ctx, { userId: user, roomId: open.roomId, via });
    const { eventId: openJoin } = await joinRoom(ctx, { userId, roomId: open.roomId, via });
    await driveResync(ctx, open.roomId, openJoin);
    const allow = [{ type: "m.room_membership", room_id: open.roomId }];
    const joinRules = { type: "m.room.join_rules", stateKey: "", content: { join_rule: "restricted", allow } };
    const roomId = await createRoom(ctx, userId, {
      version: "11",
      preset: "private_chat",
      invite: [],
      isDirect: false,
      initialState: [joinRules],
      creationContent: {},
      powerLevelOverride: {},
    });

    const joined = await joinRoom(ctx, { userId: bob, roomId, via: [] });

    const event = await loadEvent(database.pool, joined.eventId);
    expect(event?.pdu.content).toMatchObject({ membership: "join", join_authorised_via_users_server: userId });
  });
});
