import { describe, expect, it } from "vitest";
import type { Event, Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import { serverNameOf, type EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { redact } from "../../../src/matrix/redaction.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { hashAndSignEvent } from "../../../src/matrix/signatures.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../../src/rooms/resync/resync-repair-events.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { insertOutliers, loadEvent } from "../../../src/storage/events.ts";
import { partialEventIds } from "../../../src/storage/partial-state.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { clearResyncStateIds, saveResyncStateIds } from "../../../src/storage/resync-state-ids.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import { composeEvent } from "../../resident/compose-event.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { identityIn } from "../../resident/world.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

let members = 130;

async function enter(): Promise<{ room: HostedRoom; joinEventId: EventId }> {
  members += 1;
  const room = resident.hostRoom({ members });
  const { userId } = sidecar;
  const joined = await joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId };
}

describe("an event whose prev_event is of another room", () => {
  it("brings nothing of that room's state into its own", async () => {
    const one = await enter();
    const other = await enter();
    await driveResync(sidecar.ctx, one.room.roomId, one.joinEventId);
    await driveResync(sidecar.ctx, other.room.roomId, other.joinEventId);
    const bridge = await resident.sendMessage(other.room, resident.founder, "the bridge");
    const before = await sidecar.currentState(one.room.roomId);

    const identity = identityIn(resident.world);
    const message = { sender: resident.founder, type: "m.room.message", content: { body: "over the bridge" } };
    const honest = composeEvent(one.room, identity, message).event.pdu;
    const server = serverNameOf(resident.founder) ?? "";
    const { hashes: _hashes, signatures: _signatures, ...bare } = honest;
    const moved = { ...bare, prev_events: [bridge.eventId] } as Pdu;
    const pdu = hashAndSignEvent(moved, server, identity(server), one.room.rules);
    const sent = await resident.sendPdus(one.room, [pdu]);
    await receiveWaitingPdus(sidecar.ctx);

    expect(sent).toMatchObject([{ status: 200 }]);
    expect(await loadEvent(database.pool, eventIdOf(pdu, one.room.rules))).toBeUndefined();
    expect(await countWaitingPdus(database.pool, one.room.roomId)).toBe(1);
    expect(await sidecar.currentState(one.room.roomId)).toEqual(before);
  });
});

describe("an event of room version 1 that builds on itself through another", () => {
  /** The state at each of the events, as a server may tell it of events that it has made up. */
  async function tellStates(room: HostedRoom, events: readonly Event[]): Promise<void> {
    const { pool } = database;
    const { roomId } = room;
    const stateEventIds = [...resident.fullState(room).values()];
    await insertOutliers(
      pool,
      events.map((event) => ({ event, rejection: null })),
    );
    for (const { eventId } of events) {
      const told = { roomId, eventId, serverName: resident.serverName, stateEventIds, authEventIds: [] };
      await saveResyncStateIds(pool, told);
    }
  }

  async function enterOldRoom(): Promise<{ room: HostedRoom; joinEventId: EventId }> {
    members += 1;
    const room = resident.hostRoom({ members, version: "1" });
    const via = [resident.serverName];
    const joined = await joinRoom(sidecar.ctx, { userId: sidecar.userId, roomId: room.roomId, via });
    const target = { roomId: room.roomId, joinEventId: joined.eventId };
    const step = await nextResyncStep(sidecar.ctx, target);
    const eventIds = step.kind === "fetch" ? step.eventIds : [];
    for (const eventId of eventIds) {
      await fetchMissingState(sidecar.ctx, { ...target, eventId, server: resident.serverName });
    }
    return { room, joinEventId: joined.eventId };
  }

  /** A message that builds on the room's last event and on another. */
  function ringLink(room: HostedRoom, id: string, on: string): Event {
    const identity = identityIn(resident.world);
    const server = serverNameOf(resident.founder) ?? "";
    const draft = { sender: resident.founder, type: "m.room.message", content: { body: id } };
    const { hashes: _hashes, signatures: _signatures, ...bare } = composeEvent(room, identity, draft).event.pdu;
    const prev = [...(bare.prev_events as JsonValue[]), [`${on}:${server}`, {}]];
    const eventId: EventId = `${id as "$x"}:${server}`;
    const linked = { ...bare, event_id: eventId, prev_events: prev } as Pdu;
    return {
      eventId,
      roomId: room.roomId,
      pdu: hashAndSignEvent(linked, server, identity(server), room.rules),
      rejected: false,
    };
  }

  it("does not keep the room partial for ever", async () => {
    const { room, joinEventId } = await enterOldRoom();
    const one = ringLink(room, `$one${members}`, `$other${members}`);
    const other = ringLink(room, `$other${members}`, `$one${members}`);
    await tellStates(room, [one, other]);

    await resident.sendPdus(room, [one.pdu]);
    await resident.sendMessage(room, resident.founder, "beside the ring");
    await resident.sendPdus(room, [other.pdu]);

    expect(await partialEventIds(database.pool, [one.eventId])).toEqual(new Set([one.eventId]));
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(await loadEvent(database.pool, other.eventId)).toMatchObject({ outlier: true });
  });

  it("waits in vain where the room's state is full, and is no fault of ours", async () => {
    const { room, joinEventId } = await enterOldRoom();
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    const one = ringLink(room, `$one${members}`, `$other${members}`);
    const other = ringLink(room, `$other${members}`, `$one${members}`);
    await tellStates(room, [one, other]);

    for (const { pdu } of [one, other]) {
      const [sent] = await resident.sendPdus(room, [pdu]);
      expect(sent).toMatchObject({ status: 200 });
    }
    await receiveWaitingPdus({ ...sidecar.ctx, now: () => Date.now() + 60_000 });
    const { eventId } = await resident.sendMessage(room, resident.founder, "beside the ring");

    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, softFailed: false });
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("waits in vain also where it comes together with what closes the ring", async () => {
    const { room, joinEventId } = await enterOldRoom();
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    const one = ringLink(room, `$one${members}`, `$other${members}`);
    const other = ringLink(room, `$other${members}`, `$one${members}`);
    await tellStates(room, [one, other]);

    expect(await resident.sendPdus(room, [one.pdu, other.pdu])).toMatchObject([{ status: 200 }]);

    const stored = [await loadEvent(database.pool, one.eventId), await loadEvent(database.pool, other.eventId)];
    expect(stored.filter((event) => event?.outlier === true)).toHaveLength(1);
    expect(await forwardExtremities(database.pool, room.roomId)).toHaveLength(1);
    const { eventId } = await resident.sendMessage(room, resident.founder, "beside the ring");
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, softFailed: false });
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("an outlier whose event is received", () => {
  /** Another event of a chosen id, as a server of room version 1 can make it. */
  function twin(room: HostedRoom, eventId: EventId, type: string, content: JsonObject): Event {
    const identity = identityIn(resident.world);
    const server = serverNameOf(resident.founder) ?? "";
    const draft = { sender: resident.founder, type, stateKey: "", content };
    const { hashes: _hashes, signatures: _signatures, ...bare } = composeEvent(room, identity, draft).event.pdu;
    const pdu = hashAndSignEvent({ ...bare, event_id: eventId } as Pdu, server, identity(server), room.rules);
    return { eventId, roomId: room.roomId, pdu, rejected: false };
  }

  async function enterVersion1(): Promise<{ room: HostedRoom; twins: readonly [Event, Event] }> {
    members += 1;
    const room = resident.hostRoom({ members, version: "1" });
    const via = [resident.serverName];
    const joined = await joinRoom(sidecar.ctx, { userId: sidecar.userId, roomId: room.roomId, via });
    expect(await driveResync(sidecar.ctx, room.roomId, joined.eventId)).toBe("completed");
    const id: EventId = `$twin${members}:${serverNameOf(resident.founder) ?? ""}`;
    const levels = twin(room, id, "m.room.power_levels", { users: { "@mallory:evil.example": 100 } });
    return { room, twins: [levels, twin(room, id, "m.room.topic", { topic: "harmless" })] };
  }

  it("gives way whole to another of its id, where it was refused", async () => {
    const { room, twins } = await enterVersion1();
    const [levels, topic] = twins;
    await insertOutliers(database.pool, [{ event: levels, rejection: "power_levels: refused" }]);

    await resident.sendPdus(room, [topic.pdu]);

    const stored = await loadEvent(database.pool, topic.eventId);
    expect(stored).toMatchObject({ outlier: false, rejection: null, pdu: topic.pdu });
    const columns = await database.pool.query("SELECT type, depth FROM events WHERE event_id = $1", [topic.eventId]);
    expect(columns.rows).toEqual([{ type: "m.room.topic", depth: String(topic.pdu.depth) }]);
    expect((await sidecar.currentState(room.roomId)).get(stateKeyOf("m.room.topic", ""))).toBe(topic.eventId);
  });

  it("is not replaced by another of its id, where the room's state may hold it", async () => {
    const { room, twins } = await enterVersion1();
    const [levels, topic] = twins;
    await insertOutliers(database.pool, [{ event: levels, rejection: null }]);

    await resident.sendPdus(room, [topic.pdu]);

    expect(await loadEvent(database.pool, topic.eventId)).toMatchObject({ outlier: true, pdu: levels.pdu });
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("keeps the content that one of the two copies has, whichever came redacted", async () => {
    const { room } = await enter();
    const sent = [1, 2].map(() => resident.sendMessage(room, resident.founder, "in full", { push: false }));
    const [first, second] = (await Promise.all(sent)).map(({ event }) => event);
    if (first === undefined || second === undefined) throw new Error("there are two");
    const bare = redact(first.pdu, room.rules);
    await insertOutliers(database.pool, [
      { event: { ...first, pdu: bare }, rejection: null },
      { event: second, rejection: null },
    ]);

    await resident.sendPdus(room, [first.pdu, redact(second.pdu, room.rules)]);

    for (const { eventId } of [first, second]) {
      const stored = await loadEvent(database.pool, eventId);
      expect(stored).toMatchObject({ outlier: false, pdu: { content: { body: "in full" } } });
    }
  });
});

describe("a second create event", () => {
  async function enterWithOther(): Promise<{ room: HostedRoom; joinEventId: EventId; other: Pdu }> {
    const { room, joinEventId } = await enter();
    const draft = { sender: resident.founder, type: "m.room.create", stateKey: "", prevEvents: [], authEvents: [] };
    const content = { room_version: room.rules.version, "org.example.other": true };
    const { event } = composeEvent(room, identityIn(resident.world), { ...draft, content, evenIfRejected: true });
    return { room, joinEventId, other: event.pdu };
  }

  it("is refused when it is sent", async () => {
    const { room, other } = await enterWithOther();
    const before = await sidecar.currentState(room.roomId);

    await resident.sendPdus(room, [other]);

    const stored = await loadEvent(database.pool, eventIdOf(other, room.rules));
    expect(stored?.rejection).toMatch(/^create\.not-first/);
    expect(await sidecar.currentState(room.roomId)).toEqual(before);
  });

  it("makes a told state unusable", async () => {
    const { room, joinEventId, other } = await enterWithOther();
    const otherId = eventIdOf(other, room.rules);
    await insertOutliers(database.pool, [
      { event: { eventId: otherId, roomId: room.roomId, pdu: other, rejected: false }, rejection: null },
    ]);
    const create = resident.fullState(room).get(stateKeyOf("m.room.create", ""));
    const lied = [...resident.fullState(room).values()].map((id) => (id === create ? otherId : id));
    const lie = { kind: "lie", lie: "answer", changes: { pdu_ids: lied }, at: "state_ids" } as const;
    const stop = resident.trouble(lie);
    const target = { roomId: room.roomId, joinEventId };
    const step = await nextResyncStep(sidecar.ctx, target);
    const [eventId] = step.kind === "fetch" ? step.eventIds : [];
    const server = resident.serverName;

    const fetched = fetchMissingState(sidecar.ctx, { ...target, eventId: eventId as EventId, server });

    await expect(fetched).rejects.toThrow("its create event is not the room's");
    stop();
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("fetchMissingState", () => {
  it("forgets ids that the server which told them can't give, so that the next one is asked for its own", async () => {
    const { room, joinEventId } = await enter();
    const target = { roomId: room.roomId, joinEventId };
    const step = await nextResyncStep(sidecar.ctx, target);
    if (step.kind !== "fetch") throw new Error(step.kind);
    const [eventId] = step.eventIds;
    const madeUp = `$${"x".repeat(43)}`;
    const stop = resident.trouble({
      kind: "lie",
      lie: "answer",
      changes: { pdu_ids: [...resident.fullState(room).values(), madeUp] },
      at: "state_ids",
    });

    const lied = fetchMissingState(sidecar.ctx, {
      ...target,
      eventId: eventId as EventId,
      server: resident.serverName,
    });
    await lied.catch(() => undefined);
    stop();

    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("a server that can't give a whole state at once", () => {
  it("is asked for its events one by one", async () => {
    const { room, joinEventId } = await enter();
    resident.trouble({ kind: "refuse", status: 504, at: "state" });

    const end = await driveResync(sidecar.ctx, room.roomId, joinEventId);

    resident.clearTrouble();
    expect(end).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("repairEvents", () => {
  it("leaves an event partial whose told state is gone or unsound, so that it is fetched again", async () => {
    const { room, joinEventId } = await enter();
    const target = { roomId: room.roomId, joinEventId };
    const fetch = await nextResyncStep(sidecar.ctx, target);
    if (fetch.kind !== "fetch") throw new Error(fetch.kind);
    for (const eventId of fetch.eventIds) {
      await fetchMissingState(sidecar.ctx, { ...target, eventId, server: resident.serverName });
    }
    expect((await nextResyncStep(sidecar.ctx, target)).kind).toBe("repair");
    await clearResyncStateIds(database.pool, room.roomId);

    expect(await repairEvents(sidecar.ctx, target, [joinEventId])).toMatchObject({ kind: "repaired", count: 0 });

    expect(await partialEventIds(database.pool, [joinEventId])).toEqual(new Set([joinEventId]));
    expect((await nextResyncStep(sidecar.ctx, target)).kind).toBe("fetch");
    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("completed");
  });
});

describe("joinRoom", () => {
  it("takes a full answer of more events than are checked at once", async () => {
    const room = resident.hostRoom({ members: 1_600 });
    // Told last, and allowed by a member told first and once.
    await resident.sendState(room, { type: "org.example.last", content: {} }, { push: false });
    const founder = resident.fullState(room).get(stateKeyOf("m.room.member", resident.founder)) as EventId;
    resident.trouble({ kind: "full-join" });
    resident.trouble({ kind: "lie", lie: "missing-auth", eventId: founder });
    const { userId } = sidecar;
    const joined = await joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
    resident.clearTrouble();
    expect(joined.partial).toBe(false);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("takes a template that can't be hashed for a bad answer of its server", async () => {
    members += 1;
    const room = resident.hostRoom({ members });
    const lie = resident.trouble({
      kind: "lie",
      lie: "template",
      changes: { "org.example.odd": 2 ** 60 },
      at: "make_join",
    });
    const { userId } = sidecar;
    const join = joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
    await expect(join).rejects.toMatchObject({ status: 502 });
    lie();
  });
});

describe("receiveWaitingPdus", () => {
  it("accepts an event whose parent waits in vain, with the state that its own sender tells", async () => {
    const { room } = await enter();
    const quiet = { push: false };
    const hidden = await resident.sendMessage(room, resident.founder, "hidden", quiet);
    resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    resident.trouble({ kind: "refuse", status: 404, at: "state_ids", forEvent: hidden.eventId });
    const parent = await resident.sendMessage(room, resident.founder, "the parent");
    const child = await resident.sendMessage(room, resident.founder, "the child");
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(2);
    await database.pool.query(
      "UPDATE waiting_pdus SET attempts = 3, retry_at = now() - interval '1 s' WHERE room_id = $1",
      [room.roomId],
    );

    await receiveWaitingPdus(sidecar.ctx);

    resident.clearTrouble();
    expect(await loadEvent(database.pool, child.eventId)).toMatchObject({ outlier: false, rejection: null });
    expect(await loadEvent(database.pool, parent.eventId)).toMatchObject({ outlier: true });
  });

  it("goes on with the others where one can't be handled", async () => {
    const { room } = await enter();
    const other = await enter();
    resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    await resident.sendMessage(room, resident.founder, "hidden", { push: false });
    const poison = await resident.sendMessage(room, resident.founder, "poison");
    await resident.sendMessage(other.room, resident.founder, "hidden", { push: false });
    const good = await resident.sendMessage(other.room, resident.founder, "good");
    const { federation } = sidecar.ctx;
    const stateIds: typeof federation.stateIds = async (server, request, options) => {
      if (request.roomId === room.roomId) throw new TypeError("a fault of ours");
      return await federation.stateIds(server, request, options);
    };

    await receiveWaitingPdus({ ...sidecar.ctx, federation: { ...federation, stateIds } });

    resident.clearTrouble();
    expect(await loadEvent(database.pool, good.eventId)).toMatchObject({ outlier: false });
    expect(await loadEvent(database.pool, poison.eventId)).toBeUndefined();
    expect(await countWaitingPdus(database.pool, room.roomId)).toBe(1);
  });
});
