import { beforeAll, describe, expect, it } from "vitest";
import { depthOf, type Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { acceptEvent } from "../../../src/rooms/events/accept-event.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { noteOwnEventDestinations } from "../../../src/storage/own-event-destinations.ts";
import { addPartialRoomServers, insertPartialRoom, markPartial } from "../../../src/storage/partial-state.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { ALICE, aRoom } from "../../support/a-room.ts";
import { openTestDatabase } from "../../support/database.ts";
import { holdLock, untilWaiting } from "../../support/hold-point.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";
import type { HttpAnswer, RemoteServer } from "../../support/loopback-federation.ts";

const BOB: UserId = "@bob:them.example";
const rules = rulesFor("11");
const VERSIONS = "ver=11";

const ctx = aRoomsContext(await openTestDatabase());
const { pool } = ctx.database;
let them: RemoteServer;
let stranger: RemoteServer;

beforeAll(async () => {
  const federation = await startLoopbackFederation(ctx);
  them = await federation.remote("them.example");
  stranger = await federation.remote("stranger.example");
});

const PARTIAL = { status: 403, body: { errcode: "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE" } };
const NOT_FOUND = { status: 404, body: { errcode: "M_NOT_FOUND" } };
const FORBIDDEN = { status: 403, body: { errcode: "M_FORBIDDEN" } };
const UNKNOWN: EventId = `$${"u".repeat(43)}`;

function get(server: RemoteServer, path: string): Promise<HttpAnswer> {
  return server.ask("GET", `/_matrix/federation/v1/${path}`);
}

async function join(server: RemoteServer, roomId: RoomId, userId: UserId): Promise<void> {
  const made = await get(server, `make_join/${roomId}/${userId}?${VERSIONS}`);
  const event = server.complete((made.body as { readonly event: JsonObject }).event, rules);
  const sent = await server.ask("PUT", `/_matrix/federation/v2/send_join/${roomId}/${event.eventId}`, event.pdu);
  expect(sent).toMatchObject({ status: 200 });
}

async function say(roomId: RoomId, body: string): Promise<EventId> {
  return (await createEvent(ctx, { roomId, sender: ALICE, type: "m.room.message", content: { body } })).eventId;
}

/** A message of Bob's, as the room receives it. */
async function hear(roomId: RoomId, body: string): Promise<EventId> {
  const [prev = UNKNOWN] = await forwardExtremities(pool, roomId);
  const tip = await loadEvent(pool, prev);
  const { rows } = await pool.query<{ readonly id: EventId }>(
    `SELECT event_id AS id FROM events WHERE room_id = $1 AND (type IN ('m.room.create', 'm.room.power_levels')
       OR (type = 'm.room.member' AND state_key = $2))`,
    [roomId, BOB],
  );
  const draft = {
    type: "m.room.message",
    room_id: roomId,
    sender: BOB,
    content: { body },
    prev_events: [prev],
    auth_events: rows.map(({ id }) => id),
    depth: Number(tip === undefined ? 0n : depthOf(tip.pdu)) + 1,
  };
  const event = them.complete(draft, rules);
  expect(await acceptEvent(ctx, { event, origin: them.name })).toMatchObject({ rejection: null });
  return event.eventId;
}

interface PartialRoom {
  readonly roomId: RoomId;
  /** Known in full, though the room is not. */
  readonly known: EventId;
  readonly ours: EventId;
  readonly theirs: EventId;
  readonly latest: EventId;
}

async function aPartialRoom(): Promise<PartialRoom> {
  const roomId = await aRoom(ctx);
  await join(them, roomId, BOB);
  const known = await hear(roomId, "Known in full");
  await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: "them.example", deviceListsStreamId: 0n });
  const ours = await say(roomId, "Ours");
  const theirs = await hear(roomId, "Theirs");
  const latest = await say(roomId, "Latest");
  for (const id of [ours, theirs, latest]) await markPartial(pool, roomId, id);
  return { roomId, known, ours, theirs, latest };
}

async function noLongerPartial(roomId: RoomId): Promise<void> {
  await pool.query("DELETE FROM partial_state_events WHERE room_id = $1", [roomId]);
  await pool.query("DELETE FROM partial_state_rooms_servers WHERE room_id = $1", [roomId]);
  await pool.query("DELETE FROM partial_state_rooms WHERE room_id = $1", [roomId]);
}

function idsOf(answer: HttpAnswer, key = "pdus"): readonly EventId[] {
  expect(answer).toMatchObject({ status: 200 });
  const pdus = (answer.body as Record<string, unknown>)[key] as readonly Pdu[];
  return pdus.map((pdu) => eventIdOf(pdu, rules));
}

describe("a partially joined room, to a server that would join, knock or leave by us", () => {
  it.each(["make_join", "make_knock", "make_leave"])("answers %s with 404", async (endpoint) => {
    const { roomId } = await aPartialRoom();
    const ask = (): Promise<HttpAnswer> => get(them, `${endpoint}/${roomId}/@new:them.example?${VERSIONS}`);
    expect(await ask()).toMatchObject(NOT_FOUND);
    // Not for another reason: once the state is known, the answer is the room's.
    await noLongerPartial(roomId);
    expect(await ask()).toMatchObject({ status: endpoint === "make_join" ? 200 : 403 });
  });

  it.each([
    ["v1/send_join", "join"],
    ["v2/send_join", "join"],
    ["v1/send_knock", "knock"],
    ["v1/send_leave", "leave"],
    ["v2/send_leave", "leave"],
  ])("answers %s with 404 and stores nothing", async (endpoint, membership) => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const user: UserId = membership === "leave" ? BOB : "@new:them.example";
    const made = await get(them, `make_${membership === "knock" ? "join" : membership}/${roomId}/${user}?${VERSIONS}`);
    const template = (made.body as { readonly event: JsonObject }).event;
    const event = them.complete({ ...template, content: { membership } }, rules);
    await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: null, deviceListsStreamId: 0n });

    const send = (): Promise<HttpAnswer> =>
      them.ask("PUT", `/_matrix/federation/${endpoint}/${roomId}/${event.eventId}`, event.pdu);
    expect(await send()).toMatchObject(NOT_FOUND);
    expect(await loadEvent(pool, event.eventId)).toBeUndefined();

    await noLongerPartial(roomId);
    expect(await send()).toMatchObject({ status: membership === "knock" ? 403 : 200 });
  });

  it("answers send_join with 404 where it became partial while the join was being checked", async () => {
    const roomId = await aRoom(ctx);
    const made = await get(them, `make_join/${roomId}/${BOB}?${VERSIONS}`);
    const event = them.complete((made.body as { readonly event: JsonObject }).event, rules);
    const lock = await holdLock(ctx.database, "SELECT 1 FROM rooms WHERE room_id = $1 FOR NO KEY UPDATE", [roomId]);
    const sending = them.ask("PUT", `/_matrix/federation/v2/send_join/${roomId}/${event.eventId}`, event.pdu);
    await untilWaiting(ctx.database, /FROM rooms WHERE room_id = \$1 FOR NO KEY UPDATE/);
    await insertPartialRoom(pool, { roomId, joinEventId: null, joinedVia: null, deviceListsStreamId: 0n });
    await lock.release();

    expect(await sending).toMatchObject(NOT_FOUND);
    expect(await loadEvent(pool, event.eventId)).toBeUndefined();
  });
});

describe("a partially joined room, asked about its state", () => {
  it.each(["state", "state_ids"])("answers %s with the code of MSC3895, at whatever event", async (endpoint) => {
    const { roomId, known, ours, theirs } = await aPartialRoom();
    for (const eventId of [known, ours, theirs, UNKNOWN]) {
      for (const server of [them, stranger]) {
        expect(await get(server, `${endpoint}/${roomId}?event_id=${eventId}`)).toMatchObject(PARTIAL);
      }
    }
    await noLongerPartial(roomId);
    expect(await get(them, `${endpoint}/${roomId}?event_id=${known}`)).toMatchObject({ status: 200 });
  });
});

describe("a partially joined room, asked for an event", () => {
  const asked = (roomId: RoomId, eventId: EventId): readonly [string, string] => [
    `event/${eventId}`,
    `event_auth/${roomId}/${eventId}`,
  ];

  it("answers with the code of MSC3895 where it is another server's, also one that is known in full", async () => {
    const { roomId, known, theirs } = await aPartialRoom();
    for (const eventId of [known, theirs]) {
      for (const path of asked(roomId, eventId)) {
        expect(await get(them, path), path).toMatchObject(PARTIAL);
        expect(await get(stranger, path), path).toMatchObject(PARTIAL);
      }
    }
    expect(await get(them, `event_auth/${roomId}/${UNKNOWN}`)).toMatchObject(PARTIAL);
  });

  it("gives our own to a server that is in the room", async () => {
    const { roomId, ours } = await aPartialRoom();
    const [event, auth] = asked(roomId, ours);
    expect(idsOf(await get(them, event))).toEqual([ours]);
    expect(idsOf(await get(them, auth), "auth_chain")).not.toEqual([]);
  });

  it("gives our own to a server that we sent it to, also where that is not in the room", async () => {
    const { roomId, ours, latest } = await aPartialRoom();
    const streamId = (await loadEvent(pool, ours))?.streamId ?? 0n;
    await pool.query("DELETE FROM own_event_destinations WHERE room_id = $1", [roomId]);
    await noteOwnEventDestinations(pool, roomId, { eventId: ours, streamId, servers: [stranger.name] });
    const [event, auth] = asked(roomId, ours);
    expect(idsOf(await get(stranger, event))).toEqual([ours]);
    expect(idsOf(await get(stranger, auth), "auth_chain")).not.toEqual([]);
    for (const path of asked(roomId, latest)) expect(await get(stranger, path), path).toMatchObject(FORBIDDEN);
  });

  it("gives our own whole to a server that we sent it to, whatever its state says of who may see it", async () => {
    const { roomId, ours } = await aPartialRoom();
    const visibility = { type: "m.room.history_visibility", stateKey: "", content: { history_visibility: "joined" } };
    await createEvent(ctx, { roomId, sender: ALICE, ...visibility });
    const hidden = await say(roomId, "For members");
    const streamId = (await loadEvent(pool, hidden))?.streamId ?? 0n;
    await pool.query("DELETE FROM own_event_destinations WHERE room_id = $1", [roomId]);
    await noteOwnEventDestinations(pool, roomId, { eventId: hidden, streamId, servers: [stranger.name] });
    const answer = await get(stranger, `event/${hidden}`);
    expect(answer).toMatchObject({ status: 200, body: { pdus: [{ content: { body: "For members" } }] } });
    expect(ours).not.toBe(hidden);
  });

  it("gives none that was rejected, though it is ours and was sent", async () => {
    const { roomId, ours } = await aPartialRoom();
    const streamId = (await loadEvent(pool, ours))?.streamId ?? 0n;
    await noteOwnEventDestinations(pool, roomId, { eventId: ours, streamId, servers: [them.name] });
    await pool.query("UPDATE events SET rejection = 'test: refused' WHERE event_id = $1", [ours]);
    expect(await get(them, `event/${ours}`)).toMatchObject(NOT_FOUND);
    expect(await get(them, `event_auth/${roomId}/${ours}`)).toMatchObject(NOT_FOUND);
  });
});

describe("a partially joined room, asked for its past", () => {
  it("serves backfill with other servers' events hidden, walking through them", async () => {
    const { roomId, known, ours, latest } = await aPartialRoom();
    expect(idsOf(await get(them, `backfill/${roomId}?v=${latest}&limit=4`))).toEqual([latest, ours, known]);
  });

  it("serves get_missing_events with other servers' events hidden, walking through them", async () => {
    const { roomId, known, ours, latest } = await aPartialRoom();
    const body = { earliest_events: [], latest_events: [latest], limit: 3 };
    const answer = await them.ask("POST", `/_matrix/federation/v1/get_missing_events/${roomId}`, body);
    expect(idsOf(answer, "events")).toEqual([known, ours]);
  });

  it("serves both to a server that the join named, and to no stranger", async () => {
    const { roomId, latest } = await aPartialRoom();
    const body = { earliest_events: [], latest_events: [latest], limit: 3 };
    const both = async (): Promise<readonly number[]> => [
      (await get(stranger, `backfill/${roomId}?v=${latest}&limit=4`)).status,
      (await stranger.ask("POST", `/_matrix/federation/v1/get_missing_events/${roomId}`, body)).status,
    ];
    expect(await both()).toEqual([403, 403]);
    await addPartialRoomServers(pool, roomId, [stranger.name]);
    expect(await both()).toEqual([200, 200]);
  });

  it("serves no message of which no state is known: nobody can tell who may see it", async () => {
    const roomId = await aRoom(ctx);
    await join(them, roomId, BOB);
    const theirs = await hear(roomId, "Fetched as history");
    const ours = await say(roomId, "Ours");
    await pool.query("UPDATE events SET state_before = NULL, state_after = NULL WHERE event_id = ANY ($1)", [
      [theirs, ours],
    ]);
    const latest = await say(roomId, "Latest").catch(() => undefined);
    expect(latest).toBeUndefined();
    expect(await get(them, `event/${theirs}`)).toMatchObject(NOT_FOUND);
    expect(idsOf(await get(them, `event/${ours}`))).toEqual([ours]);
    expect(idsOf(await get(them, `backfill/${roomId}?v=${ours}&limit=3`))).not.toContain(theirs);
  });
});
