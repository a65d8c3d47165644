import { beforeAll, describe, expect, it } from "vitest";
import { depthOf } from "../../../src/matrix/event.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { LosslessNumber, type JsonObject } from "../../../src/matrix/json.ts";
import { acceptEvent } from "../../../src/rooms/events/accept-event.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import type { InitialStateEvent } from "../../../src/rooms/send/initial-room-events.ts";
import { insertOutliers, loadEvent } from "../../../src/storage/events.ts";
import { addPartialRoomServers, insertPartialRoom, markPartial } from "../../../src/storage/partial-state.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { aPdu, rulesFor } from "../../support/a-pdu.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { HttpAnswer, RemoteServer } from "../../support/loopback-federation.ts";

const BOB: UserId = "@bob:them.example";
const rules = rulesFor("11");

const ctx = aRoomsContext(await openTestDatabase());
const { pool } = ctx.database;
let them: RemoteServer;
let stranger: RemoteServer;

beforeAll(async () => {
  const federation = await startLoopbackFederation(ctx);
  them = await federation.remote("them.example");
  stranger = await federation.remote("stranger.example");
});

async function join(server: RemoteServer, roomId: RoomId, userId: UserId): Promise<EventId> {
  const made = await server.ask("GET", `/_matrix/federation/v1/make_join/${roomId}/${userId}?ver=11`);
  const event = server.complete((made.body as { readonly event: JsonObject }).event, rules);
  const sent = await server.ask("PUT", `/_matrix/federation/v2/send_join/${roomId}/${event.eventId}`, event.pdu);
  expect(sent).toMatchObject({ status: 200 });
  return event.eventId;
}

async function say(roomId: RoomId, body: string): Promise<EventId> {
  const content = { msgtype: "m.text", body };
  return (await createEvent(ctx, { roomId, sender: ALICE, type: "m.room.message", content })).eventId;
}

async function state(roomId: RoomId, type: string, content: JsonObject, stateKey = ""): Promise<EventId> {
  return (await createEvent(ctx, { roomId, sender: ALICE, type, stateKey, content })).eventId;
}

/** A message of Bob's, as the room receives it. */
async function hear(roomId: RoomId, body: string): Promise<EventId> {
  const [prev] = await forwardExtremities(pool, roomId);
  const current = prev === undefined ? undefined : await loadEvent(pool, prev);
  const authEvents = await pool.query<{ readonly id: EventId }>(
    `SELECT event_id AS id FROM events WHERE room_id = $1 AND (type IN ('m.room.create', 'm.room.power_levels')
       OR (type = 'm.room.member' AND state_key = $2))`,
    [roomId, BOB],
  );
  const event = them.complete(
    {
      type: "m.room.message",
      room_id: roomId,
      sender: BOB,
      content: { msgtype: "m.text", body },
      prev_events: [prev ?? "$none"],
      auth_events: authEvents.rows.map(({ id }) => id),
      depth: Number(current === undefined ? 0n : depthOf(current.pdu)) + 1,
    },
    rules,
  );
  const stored = await acceptEvent(ctx, { event, origin: them.name });
  expect(stored.rejection).toBeNull();
  return event.eventId;
}

function visibility(value: string): readonly InitialStateEvent[] {
  return [{ type: "m.room.history_visibility", stateKey: "", content: { history_visibility: value } }];
}

async function ask(server: RemoteServer, path: string): Promise<HttpAnswer> {
  return await server.ask("GET", `/_matrix/federation/v1/${path}`);
}

function pdusOf(answer: HttpAnswer, key = "pdus"): readonly Pdu[] {
  expect(answer).toMatchObject({ status: 200 });
  return (answer.body as Record<string, unknown>)[key] as readonly Pdu[];
}

function idsOf(pdus: readonly Pdu[]): readonly EventId[] {
  return pdus.map((pdu) => eventIdOf(pdu, rules));
}

function getMissing(server: RemoteServer, roomId: RoomId, body: JsonObject): Promise<HttpAnswer> {
  return server.ask("POST", `/_matrix/federation/v1/get_missing_events/${roomId}`, body);
}

function backfill(server: RemoteServer, roomId: RoomId, from: EventId, limit = 10): Promise<HttpAnswer> {
  return ask(server, `backfill/${roomId}?v=${from}&limit=${limit}`);
}

const FORBIDDEN = { status: 403, body: { errcode: "M_FORBIDDEN" } };
const NOT_FOUND = { status: 404, body: { errcode: "M_NOT_FOUND" } };
const PARTIAL = { status: 403, body: { errcode: "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE" } };

describe("event", () => {
  it("is served to servers of the room, in a transaction's form", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const eventId = await say(roomId, "Hello");
    const answer = await ask(them, `event/${eventId}`);
    expect(answer.body).toMatchObject({ origin: "us.example", origin_server_ts: expect.any(Number) });
    expect(idsOf(pdusOf(answer))).toEqual([eventId]);
    expect(pdusOf(answer)[0]?.content).toMatchObject({ body: "Hello" });
    expect(await ask(stranger, `event/${eventId}`)).toMatchObject(FORBIDDEN);
    expect(await ask(them, `event/$${"n".repeat(43)}`)).toMatchObject(NOT_FOUND);
  });

  it("is not served once its server's last user has left", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const eventId = await say(roomId, "Hello");
    await state(roomId, "m.room.member", { membership: "leave" }, BOB);
    expect(await ask(them, `event/${eventId}`)).toMatchObject(FORBIDDEN);
  });

  it("is not served if it was rejected, but if it was soft-failed", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const eventId = await say(roomId, "Hello");
    await pool.query("UPDATE events SET soft_failed = true WHERE event_id = $1", [eventId]);
    expect(await ask(them, `event/${eventId}`)).toMatchObject({ status: 200 });
    await pool.query("UPDATE events SET rejection = 'test: refused' WHERE event_id = $1", [eventId]);
    expect(await ask(them, `event/${eventId}`)).toMatchObject(NOT_FOUND);
    expect(await ask(them, `event_auth/${roomId}/${eventId}`)).toMatchObject(NOT_FOUND);
    for (const endpoint of ["state", "state_ids"]) {
      expect(await ask(them, `${endpoint}/${roomId}?event_id=${eventId}`)).toMatchObject(NOT_FOUND);
    }
    const next = await say(roomId, "Next");
    expect(idsOf(pdusOf(await backfill(them, roomId, next)))).not.toContain(eventId);
    const missing = { earliest_events: [], latest_events: [next] };
    expect(idsOf(pdusOf(await getMissing(them, roomId, missing), "events"))).not.toContain(eventId);
  });

  it("is served if it is known as part of a state only, whose own state nobody knows", async () => {
    const roomId = await aRoom(ctx);
    const eventId = await join(them, roomId, BOB);
    await pool.query("UPDATE events SET outlier = true, stream_id = NULL WHERE event_id = $1", [eventId]);
    expect(idsOf(pdusOf(await ask(them, `event/${eventId}`)))).toEqual([eventId]);
    expect(await ask(them, `state_ids/${roomId}?event_id=${eventId}`)).toMatchObject(NOT_FOUND);
    expect(pdusOf(await backfill(them, roomId, eventId))).toEqual([]);
  });
});

describe("history visibility", () => {
  async function whatTheySee(initialState: readonly InitialStateEvent[], invited = false): Promise<unknown> {
    const roomId = await aRoom(ctx, { initialState });
    if (invited) await state(roomId, "m.room.member", { membership: "invite" }, BOB);
    const before = await say(roomId, "Before");
    await join(them, roomId, BOB);
    const after = await say(roomId, "After");
    const bodies = new Map<EventId, unknown>();
    for (const pdu of pdusOf(await backfill(them, roomId, after, 100))) {
      // A redacted event keeps its id: others can place it in the graph.
      bodies.set(eventIdOf(pdu, rules), pdu.content["body"]);
    }
    expect([...bodies.keys()]).toEqual(expect.arrayContaining([before, after]));
    const [alone] = pdusOf(await ask(them, `event/${before}`));
    expect(alone?.content["body"]).toBe(bodies.get(before));
    return [bodies.get(before), bodies.get(after)];
  }

  it("hides by redaction what was said before a server's users could see it", async () => {
    expect(await whatTheySee(visibility("joined"))).toEqual([undefined, "After"]);
    expect(await whatTheySee(visibility("invited"))).toEqual([undefined, "After"]);
  });

  it("hides nothing else", async () => {
    expect(await whatTheySee(visibility("invited"), true)).toEqual(["Before", "After"]);
    expect(await whatTheySee(visibility("joined"), true)).toEqual([undefined, "After"]);
    expect(await whatTheySee(visibility("shared"))).toEqual(["Before", "After"]);
    expect(await whatTheySee(visibility("world_readable"))).toEqual(["Before", "After"]);
    expect(await whatTheySee(visibility("nonsense"))).toEqual(["Before", "After"]);
  });
});

describe("a redacted event", () => {
  it("is served in its redacted form, wherever it is served", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const message = await say(roomId, "Regretted");
    const topic = await state(roomId, "m.room.topic", { topic: "Regretted" });
    for (const redacts of [message, topic]) {
      await createEvent(ctx, { roomId, sender: ALICE, type: "m.room.redaction", content: { redacts } });
    }
    const last = await say(roomId, "Last");
    const walked = pdusOf(await backfill(them, roomId, last));
    expect(idsOf(walked)).toEqual(expect.arrayContaining([message, topic]));
    const full = pdusOf(await ask(them, `state/${roomId}?event_id=${last}`));
    expect(idsOf(full)).toContain(topic);
    for (const answer of [walked, full, pdusOf(await ask(them, `event/${message}`))]) {
      expect(JSON.stringify(answer)).not.toContain("Regretted");
    }
  });
});

describe("state and state_ids", () => {
  it("tell the state before an event, and its auth chain", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const first = await state(roomId, "m.room.topic", { topic: "First" });
    const second = await state(roomId, "m.room.topic", { topic: "Second" });
    const ids = (await ask(them, `state_ids/${roomId}?event_id=${second}`)).body as {
      readonly pdu_ids: readonly EventId[];
      readonly auth_chain_ids: readonly EventId[];
    };
    expect(ids.pdu_ids).toContain(first);
    expect(ids.pdu_ids).not.toContain(second);
    const answer = await ask(them, `state/${roomId}?event_id=${second}`);
    const [full, chain] = [pdusOf(answer), pdusOf(answer, "auth_chain")];
    expect(idsOf(full).toSorted()).toEqual(ids.pdu_ids.toSorted());
    expect(idsOf(chain).toSorted()).toEqual(ids.auth_chain_ids.toSorted());
    const all = new Set([...idsOf(full), ...idsOf(chain)]);
    const edges = [...full, ...chain].flatMap((pdu) => pdu.auth_events as readonly EventId[]);
    expect(edges.filter((id) => !all.has(id))).toEqual([]);
  });

  it("are for servers of the room, at events of the room", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const eventId = await say(roomId, "Hello");
    const other = await aRoom(ctx);
    await join(them, other, BOB);
    for (const endpoint of ["state", "state_ids"]) {
      expect(await ask(stranger, `${endpoint}/${roomId}?event_id=${eventId}`)).toMatchObject(FORBIDDEN);
      expect(await ask(them, `${endpoint}/${other}?event_id=${eventId}`)).toMatchObject(NOT_FOUND);
      expect(await ask(them, `${endpoint}/${roomId}?event_id=$${"n".repeat(43)}`)).toMatchObject(NOT_FOUND);
      expect(await ask(them, `${endpoint}/!none:us.example?event_id=${eventId}`)).toMatchObject(NOT_FOUND);
    }
    expect(await ask(them, `event_auth/${other}/${eventId}`)).toMatchObject(NOT_FOUND);
  });
});

describe("event_auth", () => {
  it("tells the whole auth chain of an event, without the event", async () => {
    const roomId = await aRoom(ctx);
    const eventId = await join(them, roomId, BOB);
    const chain = pdusOf(await ask(them, `event_auth/${roomId}/${eventId}`), "auth_chain");
    expect(chain.map(({ type }) => type).toSorted()).toEqual([
      "m.room.create",
      "m.room.join_rules",
      "m.room.member",
      "m.room.power_levels",
    ]);
    expect(idsOf(chain)).not.toContain(eventId);
    expect(await ask(stranger, `event_auth/${roomId}/${eventId}`)).toMatchObject(FORBIDDEN);
  });
});

describe("get_missing_events and backfill", () => {
  async function aConversation(count: number): Promise<{ readonly roomId: RoomId; readonly ids: readonly EventId[] }> {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const ids: EventId[] = [];
    for (let index = 0; index < count; index++) ids.push(await say(roomId, `Message ${index}`));
    return { roomId, ids };
  }

  it("gives what lies between two events, oldest first", async () => {
    const { roomId, ids } = await aConversation(6);
    const body = { earliest_events: ids.slice(1, 2), latest_events: ids.slice(5) };
    expect(idsOf(pdusOf(await getMissing(them, roomId, body), "events"))).toEqual(ids.slice(2, 5));
    const nearest = await getMissing(them, roomId, { ...body, limit: 2 });
    expect(idsOf(pdusOf(nearest, "events"))).toEqual(ids.slice(3, 5));
    const deepest = depthOf((await loadEvent(pool, ids[4] ?? "$none"))?.pdu as Pdu);
    const shallow = await getMissing(them, roomId, { ...body, min_depth: Number(deepest) });
    expect(idsOf(pdusOf(shallow, "events"))).toEqual(ids.slice(4, 5));
    expect(pdusOf(await getMissing(them, roomId, { ...body, limit: 0 }), "events")).toEqual([]);
  });

  it("gives ten missing events if none say how many, and twenty at most", async () => {
    const { roomId, ids } = await aConversation(24);
    const body = { earliest_events: [], latest_events: ids.slice(-1) };
    expect(pdusOf(await getMissing(them, roomId, body), "events")).toHaveLength(10);
    expect(pdusOf(await getMissing(them, roomId, { ...body, limit: 1000 }), "events")).toHaveLength(20);
  });

  it("refuses what is no list of event ids, and no number", async () => {
    const { roomId, ids } = await aConversation(1);
    const refusal = { status: 400, body: { errcode: "M_BAD_JSON" } };
    expect(await getMissing(them, roomId, { latest_events: "x" })).toMatchObject(refusal);
    expect(await getMissing(them, roomId, { latest_events: ["x"] })).toMatchObject(refusal);
    expect(await getMissing(them, roomId, { latest_events: ids, limit: -1 })).toMatchObject(refusal);
  });

  it("walks back from the given events, which are part of the answer, newest first", async () => {
    const { roomId, ids } = await aConversation(5);
    expect(idsOf(pdusOf(await backfill(them, roomId, ids[3] ?? "$none", 3)))).toEqual(ids.slice(1, 4).toReversed());
    const all = pdusOf(await backfill(them, roomId, ids[4] ?? "$none", 1000));
    expect(all.at(-1)?.type).toBe("m.room.create");
    expect(new Set(idsOf(all)).size).toBe(all.length);
  });

  it("walks through forks by depth", async () => {
    const { roomId, ids } = await aConversation(2);
    const [prev] = await forwardExtremities(pool, roomId);
    const left = await hear(roomId, "Left");
    await pool.query("UPDATE forward_extremities SET event_id = $2 WHERE room_id = $1", [roomId, prev]);
    const right = await hear(roomId, "Right");
    await pool.query("INSERT INTO forward_extremities (room_id, event_id) VALUES ($1, $2)", [roomId, left]);
    const merge = await say(roomId, "Merge");
    const walked = idsOf(pdusOf(await backfill(them, roomId, merge, 5)));
    expect(walked).toEqual([merge, right, left, ...ids.toReversed()]);
  });

  it("are for servers of the room, on events of the room", async () => {
    const { roomId, ids } = await aConversation(2);
    const [first = "$none"] = ids;
    expect(await backfill(stranger, roomId, first)).toMatchObject(FORBIDDEN);
    expect(await getMissing(stranger, roomId, { latest_events: ids })).toMatchObject(FORBIDDEN);
    const other = await aRoom(ctx);
    await join(them, other, BOB);
    expect(pdusOf(await backfill(them, other, first))).toEqual([]);
    expect(pdusOf(await getMissing(them, other, { latest_events: ids }), "events")).toEqual([]);
  });

  it("refuse more starts than any room has", async () => {
    const { roomId } = await aConversation(1);
    const starts = Array.from({ length: 21 }, (_none, index) => `v=$${index}`).join("&");
    expect(await ask(them, `backfill/${roomId}?${starts}&limit=1`)).toMatchObject({ status: 400 });
  });
});

describe("server access control lists", () => {
  it("shut a server out of everything that is asked by room", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const eventId = await say(roomId, "Hello");
    await state(roomId, "m.room.server_acl", { allow: ["*"], deny: ["them.example"] });
    for (const path of [
      `state/${roomId}?event_id=${eventId}`,
      `state_ids/${roomId}?event_id=${eventId}`,
      `event_auth/${roomId}/${eventId}`,
      `backfill/${roomId}?v=${eventId}&limit=1`,
      `make_leave/${roomId}/${BOB}`,
      `make_knock/${roomId}/${BOB}?ver=11`,
    ]) {
      expect(await ask(them, path), path).toMatchObject(FORBIDDEN);
    }
    expect(await getMissing(them, roomId, { latest_events: [eventId] })).toMatchObject(FORBIDDEN);
    const pdu = (await loadEvent(pool, eventId))?.pdu;
    for (const path of ["v1/send_leave", "v2/send_leave", "v1/send_knock"]) {
      const answer = await them.ask("PUT", `/_matrix/federation/${path}/${roomId}/${eventId}`, pdu);
      expect(answer, path).toMatchObject(FORBIDDEN);
    }
  });
});

describe("a partially joined room", () => {
  async function partialRoomWith(server?: string): Promise<{
    readonly roomId: RoomId;
    readonly ours: EventId;
    readonly theirs: EventId;
    readonly known: EventId;
    readonly latest: EventId;
  }> {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const known = await hear(roomId, "Known in full");
    const ours = await say(roomId, "Ours");
    const theirs = await hear(roomId, "Theirs");
    const latest = await say(roomId, "Latest");
    await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: "them.example", deviceListsStreamId: 0n });
    if (server !== undefined) await addPartialRoomServers(pool, roomId, [server]);
    for (const id of [ours, theirs, latest]) await markPartial(pool, roomId, id);
    return { roomId, ours, theirs, known, latest };
  }

  it("answers nothing about its state", async () => {
    const { roomId, ours, known } = await partialRoomWith();
    for (const eventId of [ours, known]) {
      expect(await ask(them, `state/${roomId}?event_id=${eventId}`)).toMatchObject(PARTIAL);
      expect(await ask(them, `state_ids/${roomId}?event_id=${eventId}`)).toMatchObject(PARTIAL);
    }
  });

  it("serves our own events and their auth chains, and no others", async () => {
    const { roomId, ours, theirs, known } = await partialRoomWith();
    expect(idsOf(pdusOf(await ask(them, `event/${ours}`)))).toEqual([ours]);
    expect(pdusOf(await ask(them, `event_auth/${roomId}/${ours}`), "auth_chain")).not.toEqual([]);
    for (const eventId of [theirs, known]) {
      expect(await ask(them, `event/${eventId}`)).toMatchObject(PARTIAL);
      expect(await ask(them, `event_auth/${roomId}/${eventId}`)).toMatchObject(PARTIAL);
    }
  });

  it("hides what others said from walks back, as long as it can't be judged", async () => {
    const { roomId, ours, theirs, known, latest } = await partialRoomWith();
    expect(idsOf(pdusOf(await backfill(them, roomId, latest, 4)))).toEqual([latest, ours, known]);
    const missing = await getMissing(them, roomId, { latest_events: [latest], limit: 3 });
    expect(idsOf(pdusOf(missing, "events"))).toEqual([known, ours]);
    expect(theirs).not.toBe(ours);
  });

  it("believes those servers in the room that the join named", async () => {
    const { roomId, ours, latest } = await partialRoomWith("stranger.example");
    expect(idsOf(pdusOf(await ask(stranger, `event/${ours}`)))).toEqual([ours]);
    expect(await backfill(stranger, roomId, latest)).toMatchObject({ status: 200 });
    const other = await partialRoomWith();
    expect(await ask(stranger, `event/${other.ours}`)).toMatchObject(FORBIDDEN);
    expect(await backfill(stranger, other.roomId, other.latest)).toMatchObject(FORBIDDEN);
  });
});

describe("numbers that JSON.parse would lose", () => {
  it("are served as they came, in room versions that hash them as written", async () => {
    const roomId = await aRoom(ctx, { version: "5" });
    const made = await ask(them, `make_join/${roomId}/${BOB}?ver=5`);
    const template = (made.body as { readonly event: JsonObject }).event;
    const event = them.complete(template, rulesFor("5"));
    await them.ask("PUT", `/_matrix/federation/v2/send_join/${roomId}/${encodeURIComponent(event.eventId)}`, event.pdu);
    const odd = { ...aPdu(rulesFor("5"), { room_id: roomId, type: "m.test", state_key: "odd" }) };
    const content = { big: new LosslessNumber("12345678901234567890"), float: new LosslessNumber("1.50") };
    const eventId = `$${"o".repeat(43)}` as const;
    const known = { eventId, roomId, pdu: { ...odd, content }, rejected: false };
    await insertOutliers(pool, [{ event: known, rejection: null }]);
    const answer = await ask(them, `event/${eventId}`);
    expect(answer.text).toContain('"big":12345678901234567890');
    expect(answer.text).toContain('"float":1.50');
  });
});
