import { describe, expect, it, onTestFinished } from "vitest";
import { serverNameOf, type EventId, type RoomId, type UserId } from "../../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import { splitStateKey } from "../../../../src/matrix/state.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { leaveRoom } from "../../../../src/rooms/join/leave-room.ts";
import { receiveTransaction } from "../../../../src/rooms/receive/receive-transaction.ts";
import { receiveWaitingPdus } from "../../../../src/rooms/receive/receive-waiting-pdus.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep } from "../../../../src/rooms/resync/resync-next-step.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { changedReceipts } from "../../../../src/storage/receipts.ts";
import { currentStreamPosition } from "../../../../src/storage/streams.ts";
import { changedTyping } from "../../../../src/storage/typing.ts";
import { countWaitingPdus } from "../../../../src/storage/waiting-pdus.ts";
import type { Sent } from "../../../resident/resident.ts";
import {
  AT_ROOM,
  AT_STREAM,
  holdAtRequest,
  holdAtStatement,
  holdStream,
  untilWaiting,
} from "../../../support/hold-point.ts";
import {
  completeResync,
  enterRoom,
  hostRoom,
  join,
  otherProcess,
  resyncUpTo,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";
import { eventually } from "../../../support/sidecar-process.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;

let transactions = 0;

/** A transaction of the resident's that reaches this process. */
async function receive(
  ctx: RoomsContext,
  sent: Sent,
  txnId = `race-${++transactions}`,
  edus: readonly JsonObject[] = [],
): Promise<object> {
  const pdus = [sent.event.pdu as unknown as JsonObject];
  return receiveTransaction(ctx, { origin: resident.serverName, txnId, pdus, edus });
}

async function unsent(room: Parameters<typeof resident.sendMessage>[0], body: string): Promise<Sent> {
  return resident.sendMessage(room, resident.founder, body, { push: false });
}

/** How often the event stands in the timeline, and its place in the stream of news. */
async function timesInTimeline(roomId: RoomId, eventId: EventId): Promise<number> {
  const { rows } = await pool.query<{ count: number }>(
    "SELECT count(*)::integer AS count FROM events WHERE room_id = $1 AND event_id = $2 AND stream_id IS NOT NULL",
    [roomId, eventId],
  );
  return rows[0]?.count ?? 0;
}

async function lastPosition(): Promise<bigint> {
  const { rows } = await pool.query<{ position: string }>("SELECT position FROM stream_position");
  return BigInt(rows[0]?.position ?? 0);
}

describe("one PDU in two transactions at once", () => {
  it("is stored once, and both are told that it was taken", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    const sent = await unsent(room, "twice");
    const before = await lastPosition();

    const lock = await holdStream(database);
    const first = receive(sidecar.ctx, sent);
    await untilWaiting(database, AT_STREAM);
    const second = receive(otherProcess(sidecar.ctx), sent);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await first).toEqual({ [sent.eventId]: {} });
    expect(await second).toEqual({ [sent.eventId]: {} });
    expect(await timesInTimeline(roomId, sent.eventId)).toBe(1);
    expect(await lastPosition()).toBe(before + 1n);
    await completeResync(scene, entered);
  });
});

describe("one transaction twice at once", () => {
  it("gets one answer: that of whoever has handled it first", async () => {
    const { room, roomId } = await enterRoom(scene);
    const sent = await unsent(room, "once");
    const other = otherProcess(sidecar.ctx);
    const answering = holdAtStatement(other.database, /INSERT INTO received_transactions/);
    const slow = receive({ ...other, database: answering.database }, sent, "the same");
    await answering.reached;
    // What the slow one is about to answer is true no more.
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    // Without an EDU it would have changed nothing, and not be remembered.
    const quick = await receive(sidecar.ctx, sent, "the same", [{ edu_type: "org.example.any", content: {} }]);
    answering.release();

    expect(quick).toMatchObject({ [sent.eventId]: { error: expect.any(String) } });
    expect(await slow).toEqual(quick);
    expect(await receive(sidecar.ctx, sent, "the same")).toEqual(quick);
    expect(await timesInTimeline(roomId, sent.eventId)).toBe(1);
  });

  it("waits for an answer that is being stored", async () => {
    const entered = await enterRoom(scene);
    const sent = await unsent(entered.room, "once");
    const lock = await holdStream(database);
    const both = [sidecar.ctx, otherProcess(sidecar.ctx)].map((ctx) => receive(ctx, sent, "again the same"));
    await untilWaiting(database, AT_STREAM);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    const [first, second] = await Promise.all(both);
    expect(first).toEqual({ [sent.eventId]: {} });
    expect(second).toEqual(first);
    expect(await timesInTimeline(entered.roomId, sent.eventId)).toBe(1);
  });
});

describe("a PDU whose past is missing", () => {
  it("does not wait for ever when another process takes it while this one lets it wait", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    const parent = await unsent(room, "parent");
    const sent = await unsent(room, "child");
    resident.trouble({ kind: "refuse", status: 404, errcode: "M_NOT_FOUND", at: "get_missing_events" });
    const other = otherProcess(sidecar.ctx);
    const keeping = holdAtStatement(other.database, /INSERT INTO waiting_pdus/);
    const kept = receive({ ...other, database: keeping.database }, sent);
    await keeping.reached;
    resident.clearTrouble();
    await receive(sidecar.ctx, parent);
    await receive(sidecar.ctx, sent);
    keeping.release();

    expect(await kept).toEqual({ [sent.eventId]: {} });
    expect(await countWaitingPdus(pool, roomId)).toBe(1);
    await receiveWaitingPdus(sidecar.ctx);
    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await timesInTimeline(roomId, sent.eventId)).toBe(1);
    await completeResync(scene, entered);
  });

  it("is taken once by two processes that fetch its past at the same time", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId } = entered;
    await resident.sendMessage(room, resident.founder, "parent", { push: false });
    resident.trouble({ kind: "refuse", status: 404, errcode: "M_NOT_FOUND", at: "get_missing_events" });
    const sent = await unsent(room, "child");
    await receive(sidecar.ctx, sent);
    expect(await countWaitingPdus(pool, roomId)).toBe(1);

    const sides = [sidecar.ctx, otherProcess(sidecar.ctx)].map((ctx) => {
      return { ctx, held: holdAtRequest(ctx.federation, "stateIds", { after: true }) };
    });
    const rounds = sides.map(({ ctx, held }) => receiveWaitingPdus({ ...ctx, federation: held.federation }));
    await Promise.all(sides.map(({ held }) => held.reached));
    for (const { held } of sides) held.release();
    await Promise.all(rounds);
    resident.clearTrouble();

    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await timesInTimeline(roomId, sent.eventId)).toBe(1);
    await completeResync(scene, entered);
  });
});

describe("a PDU that is kept for a join", () => {
  it("is received, though the join has ended before it is stored", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room);
    await held.reached;
    const sent = await unsent(room, "early");
    const other = otherProcess(sidecar.ctx);
    const keeping = holdAtStatement(other.database, /INSERT INTO waiting_pdus/);
    const kept = receive({ ...other, database: keeping.database }, sent);
    await keeping.reached;
    held.release();
    const { eventId } = await joining;
    keeping.release();
    await kept;

    await eventually(async () => {
      await receiveWaitingPdus(sidecar.ctx);
      return (await timesInTimeline(roomId, sent.eventId)) === 1 ? true : undefined;
    });
    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("is received at once where the join is stored between the two looks", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const held = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
    const joining = join(scene, { ...sidecar.ctx, federation: held.federation }, room);
    await held.reached;
    const sent = await unsent(room, "early");
    const other = otherProcess(sidecar.ctx);
    const looking = holdAtStatement(other.database, /FROM joins_under_way/, { after: true });
    const received = receive({ ...other, database: looking.database }, sent);
    await looking.reached;
    held.release();
    const { eventId } = await joining;
    looking.release();

    expect(await received).toEqual({ [sent.eventId]: {} });
    expect((await timesInTimeline(roomId, sent.eventId)) + (await countWaitingPdus(pool, roomId))).toBe(1);
    await receiveWaitingPdus(sidecar.ctx);
    expect(await timesInTimeline(roomId, sent.eventId)).toBe(1);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });
});

describe("a PDU, as the room is given up", () => {
  it.each([
    { what: "and its server knows", heard: true },
    { what: "before its server hears of it, and gives what came before", heard: false },
  ])("is let go with it, $what", async ({ heard }) => {
    const { room, roomId, target } = await enterRoom(scene);
    const sent = await unsent(room, "is anybody there?");
    if (!heard) onTestFinished(resident.trouble({ kind: "hold", at: "send" }));
    // It has found us in the room and is about to be stored.
    const other = otherProcess(sidecar.ctx);
    const storing = holdAtStatement(other.database, AT_ROOM);
    const received = receive({ ...other, database: storing.database }, sent);
    await storing.reached;
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    expect(await nextResyncStep(sidecar.ctx, target)).toEqual({ kind: "left" });
    if (heard) await eventually(() => resident.membership(room, sidecar.userId) === "leave" || undefined);
    storing.release();
    await received;

    await receiveWaitingPdus(sidecar.ctx);
    expect(await countWaitingPdus(pool, roomId)).toBe(0);
    expect(await partialRoom(pool, roomId)).toBeUndefined();
    expect((await loadEvent(pool, sent.eventId))?.outlier ?? true).toBe(true);
  });
});

describe("an EDU, as the room is declared whole", () => {
  type Kind = "m.typing" | "m.receipt";
  const KINDS: readonly Kind[] = ["m.typing", "m.receipt"];

  function eduOf(kind: Kind, roomId: RoomId, userId: UserId): JsonObject {
    const receipt = { data: { ts: 1_000 }, event_ids: ["$read"] };
    const content =
      kind === "m.typing"
        ? { room_id: roomId, user_id: userId, typing: true }
        : { [roomId]: { "m.read": { [userId]: receipt } } };
    return { edu_type: kind, content };
  }

  async function take(ctx: RoomsContext, edu: JsonObject, userId: UserId): Promise<void> {
    const origin = serverNameOf(userId) ?? "";
    await receiveTransaction(ctx, { origin, txnId: `race-${++transactions}`, pdus: [], edus: [edu] });
  }

  /** Whose typing or whose receipts our user is told of. */
  async function tellers(kind: Kind, roomId: RoomId): Promise<readonly UserId[]> {
    const asked = { roomIds: [roomId], since: [0n], to: await currentStreamPosition(pool) };
    if (kind === "m.typing") return (await changedTyping(pool, asked)).get(roomId) ?? [];
    return (await changedReceipts(pool, { ...asked, viewer: sidecar.userId })).map(({ userId }) => userId);
  }

  interface Repaired extends EnteredRoom {
    readonly member: UserId;
    readonly banned: UserId;
  }

  /** All but the end of the resync is done; of neither user we know the membership. */
  async function repaired(): Promise<Repaired> {
    const entered = await enterRoom(scene);
    const { room, target } = entered;
    const users = [...resident.fullState(room).keys()].map((key) => splitStateKey(key)[1] as UserId);
    const remote = users.filter((userId) => userId.startsWith("@member-"));
    const [member, banned] = ["join", "ban"].map((membership) =>
      remote.find((userId) => resident.membership(room, userId) === membership),
    );
    await resyncUpTo(sidecar.ctx, target, "finish");
    return { ...entered, member: member ?? "@nobody:a", banned: banned ?? "@nobody:b" };
  }

  it.each(KINDS)("is judged by the full membership where the room becomes whole under it: %s", async (kind) => {
    const { roomId, target, member, banned } = await repaired();
    const taking = [member, banned].map((userId) => {
      const other = otherProcess(sidecar.ctx);
      // It asks two things of each user: whether the room is partial, and how they stand to it.
      const asks =
        /FROM partial_state_rooms WHERE room_id = \$1$|FROM current_memberships WHERE room_id = \$1 AND user_id/;
      const look = holdAtStatement(other.database, asks, { nth: 2 });
      return { look, done: take({ ...other, database: look.database }, eduOf(kind, roomId, userId), userId) };
    });
    await Promise.all(taking.map(({ look }) => look.reached));
    expect(await finishResync(sidecar.ctx, target)).toMatchObject({ kind: "completed" });
    for (const { look } of taking) look.release();
    await Promise.all(taking.map(({ done }) => done));
    expect(await tellers(kind, roomId)).toEqual([member]);
  });

  it("is stored before the end, and shown then only of who turns out to be a member", async () => {
    const { roomId, target, member } = await repaired();
    const stranger: UserId = `@stranger:${serverNameOf(member)}`;
    const lock = await holdStream(database);
    const taking = [member, stranger].map((userId) =>
      take(otherProcess(sidecar.ctx), eduOf("m.receipt", roomId, userId), userId),
    );
    await untilWaiting(database, AT_STREAM, 2);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM, 3);
    await lock.release();
    await Promise.all(taking);
    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await tellers("m.receipt", roomId)).toEqual([member]);
  });
});
