import { beforeEach, describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { callServer } from "../../resident/outbound.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi, type Body, type TestClient } from "../../support/loopback-client.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const api = await startLoopbackClientApi(database, sidecar.ctx);
const alice: TestClient = await api.register("alice");

const STRANGER: UserId = "@stranger:server-003.rooms.test";
const MALLORY: UserId = "@mallory:server-001.rooms.test";
const key = encodeURIComponent;

let members = 270;
let room: HostedRoom;
let joinEventId: EventId;
/** By one who was never in the room: refused on arrival. */
let refusedAtOnce: EventId;
/** By one whose ban we don't see: accepted on partial state. */
let refusedLater: EventId;
let newest: EventId;

beforeEach(async () => {
  members += 1;
  room = resident.hostRoom({ members });
  const { eventId: malloryJoined } = await resident.join(room, MALLORY, { push: false });
  const state = resident.fullState(room);
  const [create, levels] = ["m.room.create", "m.room.power_levels"].map((type) => state.get(stateKeyOf(type, "")));
  await resident.ban(room, MALLORY, { push: false });
  await alice.ok("POST", `join/${key(room.roomId)}`, { body: {}, query: { via: resident.serverName } });
  joinEventId = sidecar.wanted.findLast(({ roomId }) => roomId === room.roomId)?.joinEventId as EventId;
  const wrong = { evenIfRejected: true };
  refusedAtOnce = (await resident.sendMessage(room, STRANGER, "let me in", wrong)).eventId;
  const authEvents = [create, levels, malloryJoined] as EventId[];
  refusedLater = (await resident.sendMessage(room, MALLORY, "I am not banned", { ...wrong, authEvents })).eventId;
  newest = (await resident.sendMessage(room, resident.founder, "the end")).eventId;
});

async function askAsServer(uri: string): Promise<{ readonly status: number; readonly body: Body }> {
  const { status, body } = await callServer(resident.world, {
    origin: resident.serverName,
    destination: sidecar.serverName,
    method: "GET",
    uri,
  });
  return { status, body };
}

async function readsByClient(eventId: EventId): Promise<readonly number[]> {
  const at = `rooms/${key(room.roomId)}`;
  const answers = [
    await alice.call("GET", `${at}/event/${key(eventId)}`),
    await alice.call("GET", `${at}/context/${key(eventId)}`),
  ];
  return answers.map(({ status }) => status);
}

async function readsByServer(eventId: EventId): Promise<readonly number[]> {
  const { roomId } = room;
  const uris = [
    paths.event(eventId),
    paths.eventAuth(roomId, eventId),
    paths.state(roomId, eventId),
    paths.stateIds(roomId, eventId),
  ];
  return await Promise.all(uris.map(async (uri) => (await askAsServer(uri)).status));
}

async function idsInLists(): Promise<readonly EventId[]> {
  const { chunk } = await alice.ok("GET", `rooms/${key(room.roomId)}/messages`, { query: { dir: "b", limit: "50" } });
  const { rooms } = await alice.sync({ filter: JSON.stringify({ room: { state: { lazy_load_members: true } } }) });
  const { body } = await askAsServer(paths.backfill(room.roomId, [newest], 50));
  const timeline = rooms.join[room.roomId].timeline.events;
  const served = body.pdus.map((pdu: Body) => pdu.content.body);
  expect(served).not.toContain("let me in");
  return [...chunk, ...timeline].map((event: Body) => event.event_id);
}

describe("an event that is rejected on arrival", () => {
  it("answers 404 to every read, while the room is partial and after", async () => {
    expect((await loadEvent(database.pool, refusedAtOnce))?.rejection).not.toBeNull();
    expect(await readsByClient(refusedAtOnce)).toEqual([404, 404]);
    // States are refused whatever event they are asked for.
    expect(await readsByServer(refusedAtOnce)).toEqual([404, 404, 403, 403]);
    expect(await idsInLists()).not.toContain(refusedAtOnce);

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await readsByClient(refusedAtOnce)).toEqual([404, 404]);
    expect(await readsByServer(refusedAtOnce)).toEqual([404, 404, 404, 404]);
    expect(await idsInLists()).not.toContain(refusedAtOnce);
  });
});

describe("an event that the full state rejects", () => {
  it("answers 404 to every read from then on", async () => {
    expect(await readsByClient(refusedLater)).toEqual([200, 200]);
    expect(await idsInLists()).toContain(refusedLater);

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await readsByClient(refusedLater)).toEqual([404, 404]);
    expect(await readsByServer(refusedLater)).toEqual([404, 404, 404, 404]);
    expect(await idsInLists()).not.toContain(refusedLater);
  });
});
