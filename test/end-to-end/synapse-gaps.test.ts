import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import { createFederationClient, type FederationClient } from "../../src/federation-client/client.ts";
import type { EventId, KeyId, RoomId } from "../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { signingKeyFromSeed } from "../../src/matrix/signatures.ts";
import { loadEvents } from "../../src/storage/events.ts";
import { partialRoom } from "../../src/storage/partial-state.ts";
import { stateMapOf, type StateEntry } from "../support/http-client.ts";
import { eventually } from "../support/sidecar-process.ts";
import { openInProcessSynapseScene, openSynapse } from "../support/synapse/in-process-scene.ts";
import { startSynapse, type Synapse } from "../support/synapse/start-synapse.ts";
import {
  callAs,
  createSynapseRoom,
  joinOnSynapse,
  readMessages,
  readState,
  registerUser,
  sendMessage,
  setState,
  type SynapseUser,
} from "../support/synapse/synapse-client.ts";

/** Whom Synapse can't reach it leaves alone for so long (ms), or until they ask it something. */
function leavingAlone(interval: number): JsonObject {
  return {
    federation: {
      client_timeout: 20_000,
      max_long_retries: 0,
      max_short_retry_delay: 500,
      destination_min_retry_interval: interval,
      destination_max_retry_interval: interval,
    },
  };
}

/** From an hour on, it keeps nothing for such a server, which learns of what it missed by the next event alone. */
const FORGETFUL = leavingAlone(2 * 60 * 60_000);

const [{ synapse, sidecar, api, complete }, second] = await Promise.all([
  openInProcessSynapseScene(FORGETFUL),
  openSynapse(leavingAlone(100)),
]);
const { pool } = sidecar.ctx.database;
const us = sidecar.serverName;
const admin = await registerUser(synapse, "admin");
const talker = await registerUser(synapse, "talker");
/** Of the second Synapse. */
const dave = await registerUser(second, "dave");
const alice = await api.register("alice");
// Asked by us, the second Synapse learns our key: of whom it can't check, a membership is left out of its state.
await sidecar.ctx.federation.queryProfile(second.serverName, { userId: dave.userId });
const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;

/** A room of the admin's, which we know in part. */
async function enter(others: readonly SynapseUser[] = []): Promise<RoomId> {
  const roomId = await createSynapseRoom(admin, { version: "11", options: { name: "Gaps" } });
  await joinOnSynapse(talker, roomId);
  const content = { users: { [admin.userId]: 100, [alice.userId]: 50 }, events: { "org.example.step": 0 } };
  await setState(admin, roomId, { type: "m.room.power_levels", content });
  for (const user of others) await joinFromAfar(user, roomId);
  await alice.ok("POST", `join/${key(roomId)}`, { query: { via: synapse.serverName } });
  expect(await partialRoom(pool, roomId)).toBeDefined();
  await untilWeSee(roomId, await sendMessage(admin, roomId, "welcome"));
  return roomId;
}

/** A user of the second Synapse joins by the first, until the second knows the room's state, and its past. */
async function joinFromAfar(user: SynapseUser, roomId: RoomId): Promise<void> {
  await joinOnSynapse(user, roomId, [synapse.serverName]);
  await readState(user, roomId);
  await readMessages(user, roomId);
}

async function weSee(roomId: RoomId, eventId: EventId): Promise<boolean> {
  return (await alice.call("GET", at(roomId, `event/${key(eventId)}`))).status === 200;
}

async function untilWeSee(roomId: RoomId, eventId: EventId): Promise<void> {
  await eventually(async () => ((await weSee(roomId, eventId)) ? true : undefined), {
    withinMs: 60_000,
    about: () => `we do not see ${eventId}`,
  });
}

/** What they have said reaches us, whose server learns by a request of ours that we are there. */
async function untilWeHear({ synapse: server, userId }: SynapseUser, roomId: RoomId, eventId: EventId): Promise<void> {
  await eventually(
    async () => {
      await sidecar.ctx.federation.queryProfile(server.serverName, { userId });
      return (await weSee(roomId, eventId)) ? true : undefined;
    },
    { withinMs: 60_000, about: () => `${server.serverName} does not tell us of ${eventId}` },
  );
}

async function seenBy(user: SynapseUser, roomId: RoomId, eventIds: readonly EventId[]): Promise<readonly EventId[]> {
  const seen = new Set((await readMessages(user, roomId)).map((event) => event["event_id"]));
  return eventIds.filter((eventId) => seen.has(eventId));
}

async function untilSeenBy(user: SynapseUser, roomId: RoomId, ...eventIds: readonly EventId[]): Promise<void> {
  await eventually(async () => ((await seenBy(user, roomId, eventIds)).length === eventIds.length ? true : undefined), {
    withinMs: 60_000,
    about: () => `${user.userId} does not see all of ${eventIds.join(", ")}`,
  });
}

async function say(roomId: RoomId, ...texts: readonly string[]): Promise<readonly EventId[]> {
  const said: EventId[] = [];
  for (const text of texts) said.push(await alice.send(roomId, text));
  return said;
}

interface Absence {
  readonly roomId: RoomId;
  /** What told the room's server that we are away: it is still sent when we are back, unlike what was said after it. */
  readonly noticedBy: EventId;
}

/** No server reaches us, and the room's has noticed. */
async function goAway(roomId: RoomId): Promise<Absence> {
  const failures = async (): Promise<number> => (await logged(synapse, "Failed to send transaction")).length;
  const before = await failures();
  await sidecar.stopListening();
  const noticedBy = await sendMessage(admin, roomId, "are you there?");
  await eventually(async () => ((await failures()) > before ? true : undefined));
  return { roomId, noticedBy };
}

/** Servers reach us again, and we hear of what we missed by the next event. */
async function comeBack({ roomId, noticedBy }: Absence): Promise<void> {
  await sidecar.listen();
  await untilWeHear(admin, roomId, noticedBy);
  await untilWeSee(roomId, await sendMessage(admin, roomId, "welcome back"));
}

/** What is asked to fill a gap of the room, as logs note it: the room id's first character is encoded by some. */
function asksForGap(roomId: RoomId): readonly string[] {
  return ["/get_missing_events/", key(roomId.slice(1))];
}

/** The lines of its log that hold all of these words. */
async function logged({ dataDir }: Synapse, ...words: readonly string[]): Promise<readonly string[]> {
  const log = await readFile(join(dataDir, "homeserver.log"), "utf8");
  return log.split("\n").filter((line) => words.every((word) => line.includes(word)));
}

/** Messages and state, one upon the other, and a user of another server who joins; until that server has them all. */
async function liveOn(roomId: RoomId, count: number): Promise<void> {
  let last: EventId | undefined;
  for (let index = 0; index < count; index += 1) {
    if (index === 5) await joinFromAfar(dave, roomId);
    const state = { type: "org.example.step", stateKey: `${index % 4}`, content: { index } };
    const speaker = index % 2 === 0 ? talker : admin;
    if (index % 3 === 0) last = await setState(speaker, roomId, state);
    else last = await sendMessage(speaker, roomId, `message ${index}`);
  }
  // Synapse puts each event into all its queues at once: what it had for us is given up by now.
  if (last !== undefined) await untilSeenBy(dave, roomId, last);
}

/** What has happened in the room since our join, the newest first. */
function sinceOurJoin(events: readonly JsonObject[]): readonly EventId[] {
  const joined = events.findIndex((event) => event["state_key"] === alice.userId);
  expect(joined).toBeGreaterThan(0);
  return events.slice(0, joined).map((event) => event["event_id"] as EventId);
}

async function ourTimeline(roomId: RoomId): Promise<readonly EventId[]> {
  const { chunk } = await alice.ok("GET", at(roomId, "messages"), { query: { dir: "b", limit: "100" } });
  return sinceOurJoin(chunk);
}

async function stateOf(user: SynapseUser, roomId: RoomId): Promise<ReadonlyMap<string, string>> {
  return stateMapOf((await readState(user, roomId)) as unknown as StateEntry[]);
}

/** After the resync both servers have one state. */
async function agree(roomId: RoomId): Promise<void> {
  await complete(roomId);
  expect(await sidecar.currentState(roomId)).toEqual(await stateOf(admin, roomId));
}

describe("a partial room of a real Synapse of which we missed more than twenty events", () => {
  it("is told to us page by page when we are back, and ends with Synapse's timeline and state", async () => {
    const roomId = await enter();
    const absence = await goAway(roomId);
    await liveOn(roomId, 21);
    await comeBack(absence);

    expect(await logged(synapse, "Processed request", us, ...asksForGap(roomId))).toHaveLength(2);
    const ours = await ourTimeline(roomId);
    expect(ours.length).toBeGreaterThan(21);
    expect(ours).toEqual(sinceOurJoin(await readMessages(admin, roomId)));
    await agree(roomId);
    expect(await ourTimeline(roomId)).toEqual(ours);
    for (const event of (await loadEvents(pool, ours)).values()) {
      expect(event).toMatchObject({ rejection: null, outlier: false, softFailed: false });
    }
  });
});

describe("a second Synapse that joined a partial room while we were away", () => {
  it("gets our latest event after the resync, and from us what we had said before", async () => {
    const roomId = await enter();
    await goAway(roomId);
    await joinFromAfar(dave, roomId);
    const missed = await say(roomId, "one", "two", "three");
    await untilSeenBy(admin, roomId, ...missed);
    await sidecar.listen();
    await untilWeHear(dave, roomId, await sendMessage(dave, roomId, "hello"));
    expect(await seenBy(dave, roomId, missed)).toEqual([]);

    await agree(roomId);

    await untilSeenBy(dave, roomId, ...missed);
    expect(await logged(second, "Completed request: 200", `${us}/_matrix`, ...asksForGap(roomId))).toHaveLength(1);
    const ours = await ourTimeline(roomId);
    expect(new Set(ours).size).toBe(ours.length);
    expect(new Set(ours)).toEqual(new Set(sinceOurJoin(await readMessages(admin, roomId))));
  });

  it("is told again what it was told too early, and places all with our next event", async () => {
    const roomId = await enter();
    await goAway(roomId);
    await joinOnSynapse(dave, roomId, [synapse.serverName]);
    await readState(dave, roomId);
    const missed = await say(roomId, "one", "two");
    await untilSeenBy(admin, roomId, ...missed);
    await sidecar.listen();
    await untilWeHear(dave, roomId, await sendMessage(dave, roomId, "hello"));
    const early = await say(roomId, "three");
    const refused = async (): Promise<number> =>
      (await logged(second, "Request failed", `${us}/_matrix/federation/v1/state_ids/`, key(roomId.slice(1)))).length;
    await eventually(async () => ((await refused()) > 0 ? true : undefined));

    await agree(roomId);

    // What Synapse could not place it tries once more beside the next one, and drops that.
    await untilSeenBy(dave, roomId, ...missed.slice(0, 1));
    await untilSeenBy(dave, roomId, ...missed, ...early, ...(await say(roomId, "four")));
  });
});

/** What asks other servers in the name of a Synapse, with its key. */
async function inTheNameOf({ serverName, dataDir }: Synapse): Promise<FederationClient> {
  const [algorithm, version, seed = ""] = (await readFile(join(dataDir, "signing.key"), "utf8")).trim().split(" ");
  const signingKey = signingKeyFromSeed(`${algorithm}:${version}` as KeyId, Buffer.from(seed, "base64"));
  const { database, now } = sidecar.ctx;
  const reachingLoopback = { ipBlocklist: [], verifyCertificates: false };
  const client = createFederationClient({ serverName, signingKey, database, now, ...reachingLoopback });
  onTestFinished(() => client.close());
  return client;
}

function bodiesOf(pdus: readonly JsonValue[]): readonly JsonValue[] {
  return pdus.map((pdu) => {
    const { type, content } = pdu as { readonly type: string; readonly content: JsonObject };
    return content["body"] ?? type;
  });
}

describe("a partial room of ours, asked about by a real Synapse", () => {
  it("is entered by the next server where its user named us first, and by us alone not at all", async () => {
    const roomId = await enter();
    await expect(joinOnSynapse(dave, roomId, [us])).rejects.toThrow("Failed to make_join via any server");
    await joinOnSynapse(dave, roomId, [us, synapse.serverName]);
    expect(await logged(second, `Failed to make_join via ${us}: 404`)).toHaveLength(2);
    const joined = (await stateOf(dave, roomId)).get(`m.room.member\u001f${dave.userId}`);
    await untilWeSee(roomId, joined as EventId);
    await agree(roomId);
  });

  it("is told of as far as it is our own, and without its state until that is full", async () => {
    const roomId = await enter();
    const theirs = await sendMessage(admin, roomId, "theirs");
    await untilWeSee(roomId, theirs);
    const [ours, latest] = (await say(roomId, "ours", "latest")) as [EventId, EventId];
    await untilSeenBy(admin, roomId, latest);
    const asking = await inTheNameOf(synapse);
    const partial = { status: 403, errcode: "ORG.MATRIX.MSC3895_UNABLE_DUE_TO_PARTIAL_STATE" };

    for (const eventId of [theirs, ours]) {
      await expect(asking.stateIds(us, { roomId, eventId })).rejects.toMatchObject(partial);
    }
    await expect(asking.event(us, theirs)).rejects.toMatchObject(partial);
    expect(bodiesOf([await asking.event(us, ours)])).toEqual(["ours"]);
    expect(await asking.eventAuth(us, { roomId, eventId: ours })).not.toEqual([]);
    const past = await asking.backfill(us, { roomId, eventIds: [latest], limit: 10 });
    expect(bodiesOf(past)).toEqual(["latest", "ours", "m.room.member"]);
    const gap = { roomId, earliestEvents: [], latestEvents: [latest], limit: 10 };
    expect(bodiesOf(await asking.getMissingEvents(us, gap))).toEqual(["m.room.member", "ours"]);

    await agree(roomId);
    const { pdu_ids: state } = await asking.stateIds(us, { roomId, eventId: ours });
    expect(new Set(state)).toEqual(new Set((await stateOf(admin, roomId)).values()));
    expect(bodiesOf([await asking.event(us, theirs)])).toEqual(["theirs"]);
  });
});

/** What its client is told of alice's events, in that order, from a position on; until there are as many. */
async function arrivals(user: SynapseUser, roomId: RoomId, from: string, count: number): Promise<readonly EventId[]> {
  const filter = key(JSON.stringify({ room: { timeline: { limit: 100 } } }));
  const arrived: EventId[] = [];
  let since = from;
  await eventually(
    async () => {
      const synced = await callAs(user, "GET", `/sync?timeout=500&since=${since}&filter=${filter}`);
      since = synced["next_batch"] as string;
      const { join: rooms = {} } = (synced["rooms"] ?? {}) as { readonly join?: Readonly<Record<string, Joined>> };
      const events = rooms[roomId]?.timeline.events ?? [];
      arrived.push(...events.filter((event) => event.sender === alice.userId).map((event) => event.event_id));
      return arrived.length >= count ? true : undefined;
    },
    { withinMs: 60_000, about: () => `${arrived.length} of ${count} events have arrived` },
  );
  return arrived;
}

interface Joined {
  readonly timeline: { readonly events: readonly { readonly sender: string; readonly event_id: EventId }[] };
}

describe("a real Synapse that is down", () => {
  it("is done without, also by the resync, and gets our events in order, once, when it is back", async () => {
    const roomId = await enter([dave]);
    const since = (await callAs(admin, "GET", "/sync?timeout=0"))["next_batch"] as string;
    await synapse.stop();

    const said: EventId[] = [];
    for (let index = 0; index < 8; index += 1) {
      const body = { topic: `topic ${index}` };
      if (index % 4 !== 0) said.push(...(await say(roomId, `message ${index}`)));
      else said.push((await alice.ok("PUT", at(roomId, "state/m.room.topic"), { body })).event_id);
    }
    await untilSeenBy(dave, roomId, ...said);
    await complete(roomId);
    expect(await sidecar.currentState(roomId)).toEqual(await stateOf(dave, roomId));

    const { dataDir, federationPort: serverPort } = synapse;
    const restarted = await startSynapse({ dataDir, serverPort, overrides: FORGETFUL });
    afterAll(() => restarted.stop(), 60_000);
    const returned = { ...admin, synapse: restarted };
    await sendMessage(returned, roomId, "here I am");
    expect(await arrivals(returned, roomId, since, said.length)).toEqual(said);
    // It had to ask for none of them.
    expect(await logged(restarted, `${us}/_matrix`, ...asksForGap(roomId))).toEqual([]);
    expect(await stateOf(returned, roomId)).toEqual(await sidecar.currentState(roomId));
  });
});
