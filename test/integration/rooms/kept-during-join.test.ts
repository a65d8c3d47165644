import { describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { beginJoin } from "../../../src/storage/joins-under-way.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { currentStreamPosition, localMembershipsAt } from "../../../src/storage/streams.ts";
import { timeline } from "../../../src/storage/timeline.ts";
import { countWaitingPdus, waitingPdusOf } from "../../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { empower } from "../../support/client-scene.ts";
import { AT_ROOM, holdAtRequest, holdAtStatement, holdLock, untilWaiting } from "../../support/hold-point.ts";
import { completeResync, enterRoom, hostRoom, join, otherProcess } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;

/** A message and a state event that the resident sends us, whoever it thinks is in the room. */
async function sendTwo(room: HostedRoom, label: string): Promise<readonly EventId[]> {
  const to = { to: [sidecar.serverName] };
  const message = await resident.sendMessage(room, resident.founder, `${label} message`, to);
  const state = { type: "org.example.early", stateKey: label, content: { label } };
  const changed = await resident.sendState(room, state, to);
  for (const { results } of [message, changed]) expect(results).toMatchObject([{ status: 200 }]);
  return [message.eventId, changed.eventId];
}

async function handleAll(ctx: RoomsContext, room: HostedRoom): Promise<void> {
  for (let turn = 0; turn < 10 && (await countWaitingPdus(pool, room.roomId)) > 0; turn += 1) {
    await pool.query("UPDATE waiting_pdus SET retry_at = date_trunc('second', now()) - interval '1 second'");
    await receiveWaitingPdus(ctx);
  }
}

/** Each is in the timeline once, and the room ends as the resident's. */
async function expectOnce(room: HostedRoom, joinEventId: EventId, eventIds: readonly EventId[]): Promise<void> {
  const { roomId } = room;
  expect(await countWaitingPdus(pool, roomId)).toBe(0);
  const all = await timeline(pool, roomId, { direction: "forward", limit: 1_000 });
  const seen = all.map((event) => event.eventId).filter((id) => eventIds.includes(id));
  expect(seen.toSorted()).toEqual([...eventIds].toSorted());
  await completeResync(scene, { room, roomId, target: { roomId, joinEventId } });
}

describe("PDUs that arrive while a room is being joined", () => {
  it("after make_join and before send_join are kept, and are in the timeline in the end", async () => {
    const room = hostRoom(scene);
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin");
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room);
    await held.reached;
    const early = await sendTwo(room, "before");
    expect(await waitingPdusOf(pool, room.roomId, { reason: "join-under-way" })).toHaveLength(2);
    held.release();

    const { eventId } = await joining;
    await handleAll(sidecar.ctx, room);

    await expectOnce(room, eventId, early);
  });

  it("in the middle of the answer to send_join are kept, and are in the timeline in the end", async () => {
    const room = hostRoom(scene);
    const { federation } = sidecar.ctx;
    let early: Promise<readonly EventId[]> | undefined;
    const sendJoin: typeof federation.sendJoin = (server, request, options) =>
      federation.sendJoin(
        server,
        {
          ...request,
          onEvent: async (kind, pdu) => {
            early ??= sendTwo(room, "during");
            await early;
            await request.onEvent(kind, pdu);
          },
        },
        options,
      );

    const { eventId } = await join(scene, { ...sidecar.ctx, federation: { ...federation, sendJoin } }, room);
    await handleAll(sidecar.ctx, room);

    await expectOnce(room, eventId, (await early) ?? []);
  });

  it("after the answer and before it is stored are kept, and are in the timeline in the end", async () => {
    const room = hostRoom(scene);
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room);
    await held.reached;
    const early = await sendTwo(room, "after");
    held.release();

    const { eventId } = await joining;
    await handleAll(sidecar.ctx, room);

    await expectOnce(room, eventId, early);
  });

  it("take an invitation back when the join fails", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const standing = async (): Promise<string | undefined> => {
      const standings = await localMembershipsAt(pool, sidecar.userId, await currentStreamPosition(pool));
      return standings.find((one) => one.roomId === roomId)?.membership;
    };
    const by = resident.front.user;
    await resident.invite(room, sidecar.userId, { by });
    await empower(resident, room, { [by]: 50 });
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin");
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room);
    await held.reached;
    const leave = { type: "m.room.member", stateKey: sidecar.userId, content: { membership: "leave" } };
    await resident.send(room, { sender: by, ...leave }, { to: [sidecar.serverName] });
    expect(await countWaitingPdus(pool, roomId)).toBe(1);
    expect(await standing()).toBe("invite");
    resident.trouble({ kind: "refuse", status: 403, at: "send_join", times: 1 });
    held.release();

    await expect(joining).rejects.toMatchObject({ status: 403 });
    await handleAll(sidecar.ctx, room);

    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await standing()).toBe("leave");
  });

  it("are handled after a crash between the stored join and its end", async () => {
    const room = hostRoom(scene);
    const answered = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const dies = holdAtStatement(database, /DELETE FROM joins_under_way WHERE room_id/);
    const ctx = { ...sidecar.ctx, federation: answered.federation, database: dies.database };
    void join(scene, ctx, room).catch(() => undefined);
    await answered.reached;
    const early = await sendTwo(room, "crash");
    answered.release();
    await dies.reached;
    const joined = await partialRoom(pool, room.roomId);

    await handleAll(otherProcess(sidecar.ctx), room);

    await expectOnce(room, joined?.joinEventId ?? "$none", early);
  });

  it("outlive a crash before the join is stored, and are handled once the user has joined again", async () => {
    const room = hostRoom(scene);
    const answered = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const dies = holdAtStatement(database, /INSERT INTO partial_state_rooms \(/);
    const ctx = { ...sidecar.ctx, federation: answered.federation, database: dies.database };
    void join(scene, ctx, room).catch(() => undefined);
    await answered.reached;
    const early = await sendTwo(room, "again");
    answered.release();
    await dies.reached;
    // PostgreSQL rolls back what the dead process had begun.
    await pool.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE datname = current_database() AND state = 'idle in transaction'`,
    );

    await handleAll(otherProcess(sidecar.ctx), room);
    expect(await waitingPdusOf(pool, room.roomId)).toHaveLength(2);
    const { eventId } = await join(scene, otherProcess(sidecar.ctx), room);
    await handleAll(otherProcess(sidecar.ctx), room);

    await expectOnce(room, eventId, early);
  });
});

describe("a transaction", () => {
  it("is not acknowledged before its events are stored", async () => {
    const { room, roomId } = await enterRoom(scene);
    const { eventId } = await resident.sendMessage(room, resident.founder, "slow", { push: false });
    const lock = await holdLock(database, "SELECT 1 FROM rooms WHERE room_id = $1 FOR UPDATE", [roomId]);
    let answered = false;
    const sending = resident.deliver(room, [eventId]).finally(() => (answered = true));
    await untilWaiting(database, AT_ROOM);

    expect(answered).toBe(false);
    expect(await loadEvent(pool, eventId)).toBeUndefined();
    await lock.release();

    expect(await sending).toMatchObject([{ status: 200, body: { pdus: { [eventId]: {} } } }]);
    expect(await loadEvent(pool, eventId)).toMatchObject({ outlier: false });
  });

  it("is not acknowledged before what can't be handled yet is kept", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await beginJoin(pool, { roomId, userId: sidecar.userId, attempt: "one", since: Date.now() });
    const { eventId } = await resident.sendMessage(room, resident.founder, "kept", { push: false });
    const lock = await holdLock(database, "LOCK TABLE waiting_pdus IN EXCLUSIVE MODE");
    let answered = false;
    const sending = resident.deliver(room, [eventId], { to: [sidecar.serverName] }).finally(() => (answered = true));
    await untilWaiting(database, /INSERT INTO waiting_pdus/);

    expect(answered).toBe(false);
    await lock.release();

    expect(await sending).toMatchObject([{ status: 200 }]);
    expect(await countWaitingPdus(pool, roomId)).toBe(1);
  });

  it("answers {} for an event that the auth rules refuse", async () => {
    const { room } = await enterRoom(scene);
    const member = resident.joinedMembers(room).find((user) => user.startsWith("@member-")) ?? resident.founder;
    const levels = { sender: member, type: "m.room.power_levels", stateKey: "", content: { users: { [member]: 100 } } };

    const { eventId, results } = await resident.send(room, levels, { evenIfRejected: true });

    expect(results).toMatchObject([{ status: 200, body: { pdus: { [eventId]: {} } } }]);
    expect((await loadEvent(pool, eventId))?.rejection).toMatch(/^\S+: /);
  });
});
