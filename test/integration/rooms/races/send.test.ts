import { describe, expect, it, onTestFinished } from "vitest";
import type { EventId, RoomId } from "../../../../src/matrix/identifiers.ts";
import { emptyState, stateDiff, stateEntries, stateKeyOf } from "../../../../src/matrix/state.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { createEvent } from "../../../../src/rooms/events/create-event.ts";
import { startOutboxDelivery } from "../../../../src/rooms/send/deliver-outbox.ts";
import { createStreamWaiter } from "../../../../src/rooms/read/stream-waiter.ts";
import { changeMembership } from "../../../../src/rooms/send/change-membership.ts";
import { sendOnce } from "../../../../src/rooms/send/send-once.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { outboxDestinations } from "../../../../src/storage/outbox.ts";
import { partialEventIds } from "../../../../src/storage/partial-state.ts";
import { loadRoom } from "../../../../src/storage/rooms.ts";
import { loadState, stateAtHand } from "../../../../src/storage/state-snapshots.ts";
import type { HostedRoom } from "../../../resident/hosted-room.ts";
import { empower } from "../../../support/client-scene.ts";
import { AT_ROOM, AT_STREAM, holdAtStatement, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import {
  completeResync,
  enterRoom,
  expectWhole,
  hostRoom,
  join,
  memberEventOf,
  otherProcess,
  resyncUpTo,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";
import { eventually } from "../../../support/sidecar-process.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;
const { userId } = sidecar;

async function say(ctx: RoomsContext, roomId: RoomId, body: string, txnId = body): Promise<EventId> {
  const path = [roomId, "send", "m.room.message", txnId];
  const content = { msgtype: "m.text", body };
  return sendOnce(
    ctx,
    { userId, deviceId: "PHONE", path },
    { roomId, sender: userId, type: "m.room.message", content },
  );
}

async function messagesOf(roomId: RoomId): Promise<readonly EventId[]> {
  const { rows } = await pool.query<{ id: EventId }>(
    "SELECT event_id AS id FROM events WHERE room_id = $1 AND sender = $2 AND type = 'm.room.message' ORDER BY stream_id",
    [roomId, userId],
  );
  return rows.map(({ id }) => id);
}

describe("a client's request twice at once", () => {
  it("makes one event, which both are told of", async () => {
    const entered = await enterRoom(scene);
    const { roomId } = entered;
    const lock = await holdStream(database);
    const first = say(sidecar.ctx, roomId, "once");
    await untilWaiting(database, AT_STREAM);
    const second = say(otherProcess(sidecar.ctx), roomId, "once");
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    const eventId = await first;
    expect(await second).toBe(eventId);
    expect(await messagesOf(roomId)).toEqual([eventId]);
    await resident.waitForEvent((event) => event.eventId === eventId);
    await completeResync(scene, entered);
  });
});

describe("two messages at once, by two processes", () => {
  it("stand one after the other", async () => {
    const entered = await enterRoom(scene);
    const { roomId } = entered;
    const lock = await holdStream(database);
    const first = say(sidecar.ctx, roomId, "first");
    await untilWaiting(database, AT_STREAM);
    const second = say(otherProcess(sidecar.ctx), roomId, "second");
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    const ids = [await first, await second] as const;
    expect(await messagesOf(roomId)).toEqual(ids);
    expect((await loadEvent(pool, ids[1]))?.pdu.prev_events).toEqual([ids[0]]);
    await resident.waitForEvent((event) => event.eventId === ids[1]);
    await completeResync(scene, entered);
  });
});

describe("a message of ours, as the room is declared whole", () => {
  it("waits for that, is not partial, and is sent", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM);
    const saying = say(sidecar.ctx, roomId, "just in time");
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await finishing).toMatchObject({ kind: "completed" });
    const eventId = await saying;
    expect(await partialEventIds(pool, [eventId])).toEqual(new Set());
    await resident.waitForEvent((event) => event.eventId === eventId);
    await expectWhole(scene, entered);
  });
});

describe("what we send behind a join that is repaired", () => {
  it("has the full state behind it, which the process that sends a message need not read", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const full = (await loadEvent(pool, target.joinEventId))?.stateAfter ?? 0n;
    const other = otherProcess(sidecar.ctx);

    const message = await loadEvent(pool, await say(other, roomId, "behind the join"));
    expect(message).toMatchObject({ stateBefore: full, stateAfter: full, rejection: null });
    expect(await partialEventIds(pool, [message?.eventId ?? "$none"])).toEqual(new Set());
    expect(stateAtHand(other.database, full)).toBeUndefined();

    const content = { membership: "join", displayname: "Alice" };
    const draft = { roomId, sender: userId, type: "m.room.member", stateKey: userId, content };
    const renamed = await createEvent(other, draft);
    const [before, after] = [await loadState(database, full), await loadState(database, renamed.stateAfter ?? 0n)];
    expect([...stateDiff(before, after)]).toEqual([[stateKeyOf("m.room.member", userId), renamed.eventId]]);
    await resident.waitForEvent((event) => event.eventId === renamed.eventId);
    await completeResync(scene, entered);
  });

  it("is refused by what has changed in the room since, as by the full state", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    expect((await loadRoom(pool, roomId))?.resolvedOf).not.toBeNull();
    const content = { users: { [resident.founder]: 100 }, events: { "m.room.message": 50 } };
    const { eventId } = await resident.sendState(room, { type: "m.room.power_levels", content });
    await eventually(async () => ((await loadEvent(pool, eventId))?.outlier === false ? true : undefined));

    await expect(say(otherProcess(sidecar.ctx), roomId, "not allowed")).rejects.toMatchObject({
      errcode: "M_FORBIDDEN",
    });
    await completeResync(scene, entered);
  });
});

describe("a message of ours in a large room", () => {
  it("is judged by what the auth rules ask for, where the state is not at hand, and no other is", async () => {
    const room = resident.hostRoom({ members: 2_100, servers: 5, seed: resident.world.seed });
    const { roomId } = room;
    const { eventId: joinEventId } = await join(scene, sidecar.ctx, room);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId } });
    const other = otherProcess(sidecar.ctx);
    const current = (await loadRoom(pool, roomId))?.currentSnapshotId ?? 0n;

    const message = await loadEvent(pool, await say(other, roomId, "to many"));
    expect(message).toMatchObject({ stateBefore: current, stateAfter: current, rejection: null, softFailed: false });
    expect(message?.pdu.auth_events).toHaveLength(3);
    expect(stateAtHand(other.database, current)).toBeUndefined();
    const stranger = `@stranger:${sidecar.serverName}` as const;
    const draft = { roomId, sender: stranger, type: "m.room.message", content: {} };
    await expect(createEvent(other, draft)).rejects.toMatchObject({ errcode: "M_FORBIDDEN" });

    const content = { membership: "join", displayname: "Alice" };
    const renaming = { roomId, sender: userId, type: "m.room.member", stateKey: userId, content };
    await createEvent(other, renaming);
    const read = stateAtHand(other.database, current) ?? emptyState;
    expect(new Map(stateEntries(read))).toEqual(new Map(stateEntries(await loadState(database, current))));
    await expectWholeWith(room);
  });

  /** The resident has heard of our change of name. */
  async function expectWholeWith(room: HostedRoom): Promise<void> {
    await eventually(async () => {
      const [ours, theirs] = [await sidecar.currentState(room.roomId), resident.fullState(room)];
      return [...ours].every(([key, id]) => theirs.get(key) === id) && ours.size === theirs.size ? true : undefined;
    });
  }
});

describe("two processes that deliver", () => {
  /** Sessions that have asked for the lock of a destination. */
  async function askedForLock(): Promise<readonly number[]> {
    const { rows } = await pool.query<{ pid: number }>(
      `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'fastjoin outbox'
         AND query LIKE '%pg_try_advisory_lock%'`,
    );
    return rows.map(({ pid }) => pid);
  }
  async function holderOfLock(): Promise<number | undefined> {
    const { rows } = await pool.query<{ pid: number }>(
      `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
    );
    return rows[0]?.pid;
  }
  function sentSince(count: number): readonly { readonly txnId: string; readonly bodies: readonly unknown[] }[] {
    return resident.front.transactions.slice(count).map(({ txnId, pdus }) => {
      return { txnId, bodies: pdus.map((pdu) => (pdu as { content: { body?: unknown } }).content.body) };
    });
  }
  function sendRequests(): number {
    return resident.front.requests.filter(({ endpoint }) => endpoint === "send").length;
  }

  it("send to a server one at a time, in order, and nothing twice", async () => {
    const { roomId } = await enterRoom(scene);
    const other = startOutboxDelivery(otherProcess(sidecar.ctx));
    onTestFinished(() => other.stop());
    const before = resident.front.transactions.length;
    const requests = sendRequests();
    const letGo = resident.trouble({ kind: "hold", at: "send" });
    await say(sidecar.ctx, roomId, "one");
    await eventually(() => (sendRequests() > requests ? true : undefined));
    await say(otherProcess(sidecar.ctx), roomId, "two");
    await eventually(async () => ((await askedForLock()).length === 2 ? true : undefined));
    expect(sendRequests()).toBe(requests + 1);
    letGo();

    await eventually(async () => {
      return (await outboxDestinations(pool)).includes(resident.serverName) ? undefined : true;
    });
    expect(sentSince(before).map(({ bodies }) => bodies)).toEqual([["one"], ["two"]]);
    expect(sendRequests()).toBe(requests + 2);
  });

  it("take over from each other, under the old transaction id, when the one that sends is gone", async () => {
    const { roomId } = await enterRoom(scene);
    const before = resident.front.transactions.length;
    const requests = sendRequests();
    const letGo = resident.trouble({ kind: "hold", at: "send" });
    const eventId = await say(sidecar.ctx, roomId, "last words");
    await eventually(() => (sendRequests() > requests ? true : undefined));
    // As if the process had died: its connection is gone, and with it its lock.
    await pool.query("SELECT pg_terminate_backend($1)", [await holderOfLock()]);
    const other = startOutboxDelivery(otherProcess(sidecar.ctx));
    onTestFinished(() => other.stop());
    await eventually(() => (sendRequests() > requests + 1 ? true : undefined));
    letGo();

    await eventually(async () => {
      return (await outboxDestinations(pool)).includes(resident.serverName) ? undefined : true;
    });
    // The resident knows a repeated transaction by its id, and has taken it once.
    expect(sentSince(before).map(({ bodies }) => bodies)).toEqual([["last words"]]);
    expect(resident.room(roomId).events.has(eventId)).toBe(true);
  });
});

describe("a kick, as somebody else bans its target", () => {
  it("is refused, and lifts no ban that came in between", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await empower(resident, room, { [userId]: 50 });
    const { eventId: joinEventId } = await join(scene, sidecar.ctx, room);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId } });
    const target = resident.joinedMembers(room).findLast((one) => one.startsWith("@member-")) ?? "@nobody:a";
    const other = otherProcess(sidecar.ctx);
    // It has seen the target in the room, and is about to take the room's lock.
    const kick = holdAtStatement(other.database, AT_ROOM);
    const ctx = { ...other, database: kick.database, stream: createStreamWaiter(database) };
    const kicking = changeMembership(ctx, { kind: "kick", roomId, sender: userId, target });
    const outcome = expect(kicking).rejects.toMatchObject({ status: 403, errcode: "M_FORBIDDEN" });
    await kick.reached;
    const ban = await resident.ban(room, target);
    expect(await loadEvent(pool, ban.eventId)).toMatchObject({ outlier: false, rejection: null });
    kick.release();
    await outcome;
    expect(await memberEventOf(scene, roomId, target)).toBe(ban.eventId);
  });
});
