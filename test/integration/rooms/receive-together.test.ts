import pg from "pg";
import { describe, expect, it } from "vitest";
import { authEventIds, type Event } from "../../../src/matrix/event.ts";
import type { EventId, ServerName, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonValue } from "../../../src/matrix/json.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { acceptEvents, acceptPlainEvents, PrevEventsMissing } from "../../../src/rooms/events/accept-event.ts";
import { BANNED_BY_ACL } from "../../../src/rooms/events/server-acl.ts";
import { receiveTransaction } from "../../../src/rooms/receive/receive-transaction.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { DatabaseUnavailable } from "../../../src/storage/errors.ts";
import { loadEvents } from "../../../src/storage/events.ts";
import { members } from "../../../src/storage/memberships.ts";
import { partialEventIds } from "../../../src/storage/partial-state.ts";
import { remoteDeviceList, sharesRoomWithUs, trackRemoteDeviceList } from "../../../src/storage/remote-device-lists.ts";
import { forwardExtremities, loadRoom } from "../../../src/storage/rooms.ts";
import { loadState } from "../../../src/storage/state-snapshots.ts";
import { addWaitingPdu, countWaitingPdus, dueWaitingPdus, waitingPdusOf } from "../../../src/storage/waiting-pdus.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Sent } from "../../resident/resident.ts";
import { AT_ROOM, holdLock, untilWaiting } from "../../support/hold-point.ts";
import { completeResync, enterRoom, otherProcess, type EnteredRoom } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const { pool } = database;

let transactions = 0;

/** In one transaction, in whatever order. */
async function receive(sent: readonly Sent[], txnId = `together-${++transactions}`): Promise<object> {
  const pdus = sent.map(({ event }): JsonValue => event.pdu);
  return await receiveTransaction(sidecar.ctx, { origin: resident.serverName, txnId, pdus, edus: [] });
}

/** Two events with one content, made in the same millisecond, would be one. */
let bodies = 0;

/** Made by the resident and told to nobody. */
async function messages(room: HostedRoom, count: number, prevEvents?: readonly EventId[]): Promise<readonly Sent[]> {
  const sent: Sent[] = [];
  for (let index = 0; index < count; index += 1) {
    const last = sent.at(-1);
    const after = last === undefined ? prevEvents : [last.eventId];
    const sending = { push: false, ...(after !== undefined && { prevEvents: after }) };
    sent.push(await resident.sendMessage(room, resident.founder, `message ${++bodies}`, sending));
  }
  return sent;
}

/** A room in both of its lives: its state partial, or whole. */
const LIVES = [{ life: "partial" }, { life: "full" }] as const;

async function entered(life: (typeof LIVES)[number]["life"]): Promise<EnteredRoom> {
  const room = await enterRoom(scene);
  if (life === "full") await completeResync(scene, room);
  return room;
}

function mustBe<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("there is none");
  return value;
}

const idsOf = (sent: readonly Sent[]): EventId[] => sent.map(({ eventId }) => eventId);

/** The statements that the work asks of this process's connections. */
async function watchingStatements(watch: (args: unknown[]) => unknown, work: () => Promise<unknown>): Promise<void> {
  const original = pg.Client.prototype.query as (...args: unknown[]) => unknown;
  pg.Client.prototype.query = function watched(this: pg.Client, ...args: unknown[]) {
    watch(args);
    return original.apply(this, args);
  } as never;
  try {
    await work();
  } finally {
    pg.Client.prototype.query = original as never;
  }
}

async function statementsOf(work: () => Promise<unknown>): Promise<number> {
  let count = 0;
  await watchingStatements(() => (count += 1), work);
  return count;
}

describe.each(LIVES)("events that come together in a $life room", ({ life }) => {
  it("take hardly more statements than one", async () => {
    const { room } = await entered(life);
    await receive(await messages(room, 1));
    const one = await messages(room, 1);
    const few = await statementsOf(() => receive(one));
    const fifty = await messages(room, 50);
    const many = await statementsOf(() => receive(fifty));
    expect(many).toBeLessThan(few + 10);
    expect((await loadEvents(pool, idsOf(fifty))).size).toBe(50);
    expect(await forwardExtremities(pool, room.roomId)).toEqual(idsOf(fifty).slice(-1));
  });

  it("are written in a few statements behind their positions, for which all others wait, also when all are members", async () => {
    const { room, roomId } = await entered(life);
    const guests = Array.from({ length: 50 }, (_, number): UserId => `@guest${number}-${life}:${resident.serverName}`);
    const joins: Sent[] = [];
    for (const guest of guests) joins.push(await resident.join(room, guest, { push: false }));
    let [held, statements, all] = [false, 0, 0];
    const watch = ([statement]: unknown[]) => {
      const text = typeof statement === "string" ? statement : (statement as { readonly text: string }).text;
      if (held) statements += 1;
      all += 1;
      held = text.includes("UPDATE stream_position") || (held && text !== "COMMIT");
    };
    await watchingStatements(watch, () => receive(joins));
    expect(statements).toBeLessThan(10);
    expect(all).toBeLessThan(50 * 4);
    const rows = new Map((await members(pool, roomId)).map(({ userId, eventId }) => [userId, eventId]));
    expect(guests.map((guest) => rows.get(guest))).toEqual(idsOf(joins));
    const told = await pool.query(
      `SELECT count(*)::integer AS count FROM current_state_delta_stream JOIN events USING (stream_id, event_id)
       WHERE events.event_id = ANY ($1)`,
      [idsOf(joins)],
    );
    expect(told.rows).toEqual([{ count: 50 }]);
  });

  it("end what we know of the devices of one who leaves and joins again among them", async () => {
    const { room } = await entered(life);
    const guest: UserId = `@away-${life}:${resident.serverName}`;
    await receive([await resident.join(room, guest, { push: false })]);
    await trackRemoteDeviceList(pool, guest, sidecar.serverName);
    expect(await remoteDeviceList(pool, guest)).toBeDefined();
    const left = await resident.leave(room, guest, { push: false });
    await receive([left, await resident.join(room, guest, { push: false })]);
    expect(await remoteDeviceList(pool, guest)).toBeUndefined();
    expect(await sharesRoomWithUs(pool, guest, sidecar.serverName)).toBe(true);
  });

  it("are judged each by what those before it have made of the room", async () => {
    const { room, roomId } = await entered(life);
    const guest: UserId = `@guest-${life}:${resident.serverName}`;
    const joined = await resident.join(room, guest, { push: false });
    const welcome = await resident.sendMessage(room, guest, "I am in", { push: false });
    const topic = { type: "m.room.topic", content: { topic: "changed on the way" } };
    const changed = await resident.sendState(room, topic, { push: false });
    const banned = await resident.ban(room, guest, { push: false });
    const authEvents = authEventIds(welcome.event.pdu);
    const refused = { push: false, authEvents, evenIfRejected: true };
    const afterwards = await resident.sendMessage(room, guest, "still here?", refused);
    const last = await messages(room, 1, [banned.eventId]);
    const all = [joined, welcome, changed, banned, afterwards, ...last];

    expect(await receive(all.toReversed())).toEqual(Object.fromEntries(idsOf(all).map((id) => [id, {}])));

    const stored = await loadEvents(pool, idsOf(all));
    const notTaken = [...stored.values()].filter(({ rejected, softFailed }) => rejected || softFailed);
    expect(notTaken.map(({ eventId }) => eventId)).toEqual([afterwards.eventId]);
    const state = await sidecar.currentState(roomId);
    expect(state.get(stateKeyOf("m.room.topic", ""))).toBe(changed.eventId);
    expect(state.get(stateKeyOf("m.room.member", guest))).toBe(banned.eventId);
    expect(await forwardExtremities(pool, roomId)).toEqual(idsOf(last));
  });

  it("of two branches with states of their own end with the resolution of both", async () => {
    const { room, roomId } = await entered(life);
    const start = mustBe([...room.extremities][0]);
    const name = (text: string) => ({ type: "m.room.name", content: { name: text } });
    const one = await resident.sendState(room, name("one"), { push: false, prevEvents: [start] });
    const other = await resident.sendState(room, name("other"), { push: false, prevEvents: [start] });
    const onOne = await messages(room, 3, [one.eventId]);
    const all = [one, other, ...onOne];
    await receive(all);
    const extremities = new Set([other.eventId, ...idsOf(onOne).slice(-1)]);
    expect(new Set(await forwardExtremities(pool, roomId))).toEqual(extremities);
    const merged = await messages(room, 2, [...extremities]);
    await receive(merged);
    expect(await forwardExtremities(pool, roomId)).toEqual(idsOf(merged).slice(-1));
    const key = stateKeyOf("m.room.name", "");
    expect((await sidecar.currentState(roomId)).get(key)).toBe(resident.fullState(room).get(key));
  });

  it("of an old fork lose no state where one of them merges only a part of the room's ends", async () => {
    const { room, roomId } = await entered(life);
    const fork = mustBe([...room.extremities][0]);
    const name = { type: "m.room.name", content: { name: "on the long branch" } };
    const named = await resident.sendState(room, name, { push: false, prevEvents: [fork] });
    const branch = await messages(room, 2, [named.eventId]);
    await receive([named, ...branch]);
    const topic = { type: "m.room.topic", content: { topic: "on the late branch" } };
    const late = await resident.sendState(room, topic, { push: false, prevEvents: [fork] });
    const merge = await messages(room, 1, [mustBe(branch[0]).eventId, late.eventId]);
    await receive([late, ...merge]);
    const extremities = [mustBe(branch[1]).eventId, mustBe(merge[0]).eventId];
    expect(new Set(await forwardExtremities(pool, roomId))).toEqual(new Set(extremities));
    const state = await sidecar.currentState(roomId);
    expect(state.get(stateKeyOf("m.room.topic", ""))).toBe(late.eventId);
    expect(state.get(stateKeyOf("m.room.name", ""))).toBe(named.eventId);
    await receive(await messages(room, 1, extremities));
    expect((await sidecar.currentState(roomId)).get(stateKeyOf("m.room.topic", ""))).toBe(late.eventId);
  });

  it("are dropped behind one of them that shuts their sender out of the room", async () => {
    const { room, roomId } = await entered(life);
    const before = await messages(room, 2);
    const content = { allow: ["*"], deny: [resident.serverName.replace(/:.*/, "")] };
    const shut = await resident.sendState(room, { type: "m.room.server_acl", content }, { push: false });
    const behind = await messages(room, 2);
    const results = await receive([...before, shut, ...behind]);
    const dropped = { error: BANNED_BY_ACL };
    const [first, second] = idsOf(behind) as [EventId, EventId];
    expect(results).toMatchObject({ [shut.eventId]: {}, [first]: dropped, [second]: dropped });
    expect((await loadEvents(pool, idsOf([...before, shut, ...behind]))).size).toBe(3);
    expect(await forwardExtremities(pool, roomId)).toEqual([shut.eventId]);
  });

  it("end each what waits for it", async () => {
    const { room, roomId } = await entered(life);
    const three = await messages(room, 3);
    const [first, second, third] = [mustBe(three[0]), mustBe(three[1]), mustBe(three[2])];
    const now = sidecar.ctx.now();
    for (const { eventId, event } of [second, third]) {
      const waiting = { eventId, roomId, origin: resident.serverName, pdu: event.pdu };
      await addWaitingPdu(pool, { ...waiting, reason: "missing-prev-events", receivedAt: now, retryAt: now + 600_000 });
    }
    await receive([first, second]);
    const due = await dueWaitingPdus(pool, { now: sidecar.ctx.now(), limit: 9, onlyRoom: roomId });
    expect(due.map(({ eventId }) => eventId)).toEqual([third.eventId]);
    expect(await countWaitingPdus(pool, roomId)).toBe(1);
  });
});

describe("the events of a gap", () => {
  it("are stored together", async () => {
    const { room } = await entered("full");
    await receive(await messages(room, 1));
    const sent = await messages(room, 19);
    const statements = await statementsOf(() => receive(sent.slice(-1)));
    expect(statements).toBeLessThan(19 * 5);
    expect((await loadEvents(pool, idsOf(sent))).size).toBe(19);
    expect(await forwardExtremities(pool, room.roomId)).toEqual(idsOf(sent).slice(-1));
  });
});

describe("events of several rooms that come together", () => {
  it("take hardly more statements than those of one", async () => {
    const rooms = [await entered("partial"), await entered("full"), await entered("full"), await entered("full")];
    const twoOfEach = async (): Promise<readonly Sent[]> => {
      const ofRooms: (readonly Sent[])[] = [];
      for (const { room } of rooms) ofRooms.push(await messages(room, 2));
      return ofRooms.flat();
    };
    await receive(await twoOfEach());
    const few = await statementsOf(async () => receive(await messages(mustBe(rooms[1]).room, 1)));
    const sent = await twoOfEach();
    const many = await statementsOf(() => receive(sent));
    expect(many).toBeLessThan(few + 10);
    expect((await loadEvents(pool, idsOf(sent))).size).toBe(8);
    for (const [index, { roomId }] of rooms.entries()) {
      expect(await forwardExtremities(pool, roomId)).toEqual([mustBe(sent[2 * index + 1]).eventId]);
    }
    expect((await partialEventIds(pool, idsOf(sent))).size).toBe(2);
  });

  it("don't wait for each other's rooms", async () => {
    const [one, other] = [await entered("full"), await entered("full")];
    const [inOne, inOther] = [await messages(one.room, 1), await messages(other.room, 1)];
    const lock = await holdLock(database, "SELECT 1 FROM rooms WHERE room_id = $1 FOR UPDATE", [one.roomId]);
    const answered = receive([...inOne, ...inOther]);
    await untilWaiting(database, AT_ROOM);
    expect([...(await loadEvents(pool, idsOf([...inOne, ...inOther]))).keys()]).toEqual(idsOf(inOther));
    await lock.release();
    expect(Object.keys(await answered)).toHaveLength(2);
    expect((await loadEvents(pool, idsOf([...inOne, ...inOther]))).size).toBe(2);
  });
});

describe("acceptPlainEvents", () => {
  it("reads no state while several rooms are locked: such a room has a turn of its own", async () => {
    const [warm, cold] = [await entered("full"), await entered("partial")];
    const sent = [...(await messages(cold.room, 2)), ...(await messages(warm.room, 2))];
    const inputs = sent.map(({ event }) => ({ event, origin: resident.serverName }));
    // Nothing is at hand in a process that has just begun.
    const ctx = otherProcess(sidecar.ctx);
    const { currentSnapshotId } = mustBe(await loadRoom(pool, warm.roomId));
    await loadState(ctx.database, mustBe(currentSnapshotId ?? undefined));
    const taken = await acceptPlainEvents(ctx, inputs);
    expect(taken.map(({ eventId }) => eventId)).toEqual(idsOf(sent.slice(2)));
    expect(Object.keys(await receive(sent))).toHaveLength(4);
    expect((await loadEvents(pool, idsOf(sent))).size).toBe(4);
  });
});

describe("acceptEvents", () => {
  it("takes what is there already without the event behind it whose past is not known", async () => {
    const { room } = await entered("full");
    const there = await messages(room, 2);
    await receive(there);
    const [, child] = await messages(room, 2);
    const inputs = [...there, mustBe(child)].map(({ event }) => ({ event, origin: resident.serverName }));
    const taken = await acceptEvents(sidecar.ctx, inputs);
    expect(taken.map(({ eventId }) => eventId)).toEqual(idsOf(there));
    await expect(acceptEvents(sidecar.ctx, inputs.slice(2))).rejects.toThrow(PrevEventsMissing);
  });
});

/** Of a list, as it is or in PostgreSQL's binary format: the size of its only dimension stands behind three numbers. */
function lengthOf(value: unknown): number {
  if (Buffer.isBuffer(value)) return value.length < 16 ? 0 : value.readInt32BE(12);
  return Array.isArray(value) ? value.length : 0;
}

describe("events that name many others", () => {
  /** Fifty, and what each names beside the one before it is in no other. */
  async function manyNames(
    room: HostedRoom,
  ): Promise<readonly { readonly event: Event; readonly origin: ServerName }[]> {
    return (await messages(room, 50)).map(({ event }, index) => {
      const others = Array.from({ length: 9 }, (_, number): EventId => `$named${index}-${number}`);
      const pdu = { ...event.pdu, auth_events: [...authEventIds(event.pdu), ...others] };
      return { event: { ...event, pdu }, origin: resident.serverName };
    });
  }

  it.each([acceptEvents, acceptPlainEvents])("are not read all at once by %o", async (accept) => {
    const { room } = await entered("full");
    const inputs = await manyNames(room);
    let most = 0;
    const watch = ([statement]: unknown[]) => {
      const { values = [] } = statement as { readonly values?: readonly unknown[] };
      most = Math.max(most, ...values.map(lengthOf));
    };
    // The first of them can't be accepted, for what it names is nowhere.
    await watchingStatements(watch, () => Promise.allSettled([accept(sidecar.ctx, inputs)]));
    expect(most).toBeGreaterThan(200);
    expect(most).toBeLessThan(300);
  });
});

describe("an event that can't be stored", () => {
  it("keeps none of those from being stored that came with it, and its transaction from being acknowledged", async () => {
    const { room, roomId } = await entered("full");
    const start = mustBe([...room.extremities][0]);
    const bad = mustBe((await messages(room, 1, [start]))[0]);
    const good = await messages(room, 5, [start]);
    await pool.query(`
      CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'refused by the test'; END $$;
      CREATE TRIGGER refuse_one BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_id = '${bad.eventId}')
        EXECUTE FUNCTION refuse_one()`);
    await expect(receive([...good, bad], "with a bad one")).rejects.toThrow("refused by the test");
    await pool.query("DROP TRIGGER refuse_one ON events");
    expect((await loadEvents(pool, idsOf([...good, bad]))).size).toBe(5);

    expect(Object.keys(await receive([...good, bad], "with a bad one"))).toHaveLength(6);
    expect((await loadEvents(pool, idsOf([...good, bad]))).size).toBe(6);
    expect(new Set(await forwardExtremities(pool, roomId))).toEqual(new Set([bad.eventId, ...idsOf(good).slice(-1)]));
  });
});

describe("a database that can't be had", () => {
  const FAULTS = [
    { fault: "its disk is full", act: "RAISE EXCEPTION 'no space is left' USING ERRCODE = '53100'" },
    { fault: "it ends the connection", act: "PERFORM pg_terminate_backend(pg_backend_pid())" },
  ];

  it.each(FAULTS)("is asked once for a transaction and not for each of its events: $fault", async ({ act }) => {
    const [one, other] = [await entered("full"), await entered("partial")];
    const ofOne = await messages(one.room, 8);
    const ofBoth = [...ofOne, ...(await messages(other.room, 8))];
    await pool.query(`
      CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ${act}; RETURN NEW; END $$;
      CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION fail()`);
    for (const sent of [ofOne, ofBoth]) {
      let begun = 0;
      const watch = ([statement]: unknown[]) => (begun += statement === "BEGIN" ? 1 : 0);
      await watchingStatements(watch, async () => {
        await expect(receive(sent, `${act} ${sent.length}`)).rejects.toThrow(DatabaseUnavailable);
      });
      // Once for all of them, and once for each room whose state is not at hand.
      expect(begun).toBeLessThan(4);
    }
    await pool.query("DROP FUNCTION fail CASCADE");
    expect((await loadEvents(pool, idsOf(ofBoth))).size).toBe(0);
    expect(Object.keys(await receive(ofBoth, `${act} ${ofBoth.length}`))).toHaveLength(16);
    expect((await loadEvents(pool, idsOf(ofBoth))).size).toBe(16);
  });

  it("keeps nothing else waiting in a room whose event needs more memory than there is", async () => {
    const { room, roomId } = await entered("full");
    const start = mustBe([...room.extremities][0]);
    const bad = mustBe((await messages(room, 1, [start]))[0]);
    const good = mustBe((await messages(room, 1, [start]))[0]);
    await pool.query(`
      CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53200'; END $$;
      CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH ROW WHEN (NEW.event_id = '${bad.eventId}') EXECUTE FUNCTION fail()`);
    const now = sidecar.ctx.now();
    for (const [index, { eventId, event }] of [bad, good].entries()) {
      const kept = { eventId, roomId, pdu: event.pdu, origin: resident.serverName, reason: "join-under-way" } as const;
      await addWaitingPdu(pool, { ...kept, receivedAt: now - 60_000 + index });
    }

    await receiveWaitingPdus(sidecar.ctx);

    expect((await loadEvents(pool, [good.eventId])).get(good.eventId)?.outlier).toBe(false);
    const [left, ...others] = await waitingPdusOf(pool, roomId);
    expect([left?.eventId, left?.attempts, others]).toEqual([bad.eventId, 0, []]);
    expect(left?.retryAt).toBeGreaterThanOrEqual(now + 60_000);
    await pool.query("DROP FUNCTION fail CASCADE");
    const later = { ...sidecar.ctx, now: () => mustBe(left).retryAt };
    await receiveWaitingPdus(later);
    expect(await waitingPdusOf(pool, roomId)).toEqual([]);
    expect((await loadEvents(pool, [bad.eventId])).get(bad.eventId)?.outlier).toBe(false);
  });

  it("costs no message to a device: the transaction that brings it is not acknowledged", async () => {
    await pool.query("INSERT INTO users (user_id) VALUES ($1)", [sidecar.userId]);
    await pool.query("INSERT INTO devices (user_id, device_id) VALUES ($1, 'AWAY')", [sidecar.userId]);
    const edu = {
      edu_type: "m.direct_to_device",
      content: {
        sender: `@one:${resident.serverName}`,
        type: "m.test",
        message_id: "while it is away",
        messages: { [sidecar.userId]: { AWAY: {} } },
      },
    };
    await pool.query(`
      CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER fail BEFORE INSERT ON to_device_messages FOR EACH STATEMENT EXECUTE FUNCTION fail()`);
    const brought = { origin: resident.serverName, txnId: "with a message to a device", pdus: [], edus: [edu] };
    await expect(receiveTransaction(sidecar.ctx, brought)).rejects.toThrow(DatabaseUnavailable);
    await pool.query("DROP FUNCTION fail CASCADE");
    await receiveTransaction(sidecar.ctx, brought);
    const { rows } = await pool.query("SELECT sender FROM to_device_messages WHERE user_id = $1", [sidecar.userId]);
    expect(rows).toEqual([{ sender: edu.content.sender }]);
  });
});
