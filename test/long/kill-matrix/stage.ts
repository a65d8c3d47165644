import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { paths } from "../../../src/federation-api/endpoints.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import type { EventId, RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../../../src/matrix/json.ts";
import { rulesOf } from "../../../src/matrix/room-versions.ts";
import { hashAndSignEvent } from "../../../src/matrix/signatures.ts";
import { defaultTaskQueue, RECONCILE_WORKFLOW, resyncWorkflowId } from "../../../workflows/contract.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { callServer, type Reply } from "../../resident/outbound.ts";
import type { Resident } from "../../resident/resident.ts";
import type { RoomParameters } from "../../resident/room-parameters.ts";
import type { HttpClient } from "../../support/http-client.ts";
import type { Lane } from "../../support/failpoints/lane.ts";

/** Where a deed is done: one sidecar, the resident, and a user with a device. */
export interface Stage {
  readonly lane: Lane;
  readonly resident: Resident;
  readonly alice: HttpClient;
  /** Tells what this deed makes from what others make. */
  readonly label: string;
  /** What the application service was told of a room, each event with in how many transactions. */
  pushedTo(roomId: string): readonly string[];
}

/** As long as anything may be away, and what it takes on a busy machine to come back. */
const WITHIN_MS = 150_000 + Number(process.env["OUTAGE_SECONDS"] ?? 0) * 1000;
const AGAIN_MS = 50;

/** Does it again until it goes well, as whoever asks a server that is away does. */
export async function insist<T>(what: string, work: () => Promise<T>): Promise<T> {
  const until = Date.now() + WITHIN_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (Date.now() > until) throw new Error(`${what}: ${String(error)}`, { cause: error });
      await delay(AGAIN_MS);
    }
  }
}

/** Waits until it is so; what can't be asked just now may be so later. */
export async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  await insist(what, async () => {
    if (!(await isSo())) throw new Error("it is not so yet");
  });
}

/** A room of the resident for this deed alone. */
export function newRoom({ resident, label }: Stage, parameters: Partial<RoomParameters> = {}): HostedRoom {
  return resident.hostRoom({ members: 30, servers: 3, ...parameters, label });
}

export async function enter({ alice, resident }: Stage, room: HostedRoom): Promise<void> {
  const path = `join/${encodeURIComponent(room.roomId)}?via=${encodeURIComponent(resident.serverName)}`;
  await insist("a join", () => alice.post(path));
}

/** One transaction, repeated under its id until it is acknowledged. */
export async function tell(
  { lane, resident }: Stage,
  { pdus = [], edus = [] }: { readonly pdus?: readonly JsonValue[]; readonly edus?: readonly JsonValue[] },
): Promise<void> {
  const origin = resident.serverName;
  const content = { origin, origin_server_ts: Date.now(), pdus, edus };
  const uri = paths.send(crypto.randomUUID());
  await insist("a transaction", async () => {
    const call = { origin, destination: lane.serverName, method: "PUT", uri, content } as const;
    const { status, body } = await callServer(resident.world, call);
    if (status !== 200) throw new Error(`${status} ${JSON.stringify(body)}`);
  });
}

/** A message of the resident's user, told until it is acknowledged. */
export async function theySay(stage: Stage, room: HostedRoom, body: string): Promise<EventId> {
  const { resident } = stage;
  const { event, eventId } = await resident.sendMessage(room, resident.front.user, body, { push: false });
  await tell(stage, { pdus: [event.pdu] });
  return eventId;
}

/** A message of ours under one transaction id, until it is taken, and the resident has it. */
export async function weSay({ alice, resident }: Stage, room: HostedRoom, body: string): Promise<void> {
  const path = `rooms/${encodeURIComponent(room.roomId)}/send/m.room.message/${crypto.randomUUID()}`;
  await insist("a message", () => alice.put(path, { msgtype: "m.text", body }));
  await resident.waitForEvent((event) => event.roomId === room.roomId && event.pdu.content["body"] === body, WITHIN_MS);
}

export async function untilWhole({ lane }: Stage, room: HostedRoom): Promise<void> {
  await until("the room is whole", async () => (await rowsOf(lane, "partial_state_rooms", room)) === 0);
}

/** How many rows of a table are the room's. */
export async function rowsOf({ database }: Lane, table: string, room: HostedRoom): Promise<number> {
  return await insist(`the rows of ${table}`, async () => {
    const { rows } = await database.pool.query<{ n: string }>(`SELECT count(*) AS n FROM ${table} WHERE room_id = $1`, [
      room.roomId,
    ]);
    return Number(rows[0]?.n);
  });
}

/** What our user is in the room, as the user's clients are told. */
export async function membershipOf({ lane, alice }: Stage, room: HostedRoom): Promise<string | undefined> {
  return await insist("the membership", async () => {
    const { rows } = await lane.database.pool.query<{ membership: string }>(
      `SELECT membership FROM local_membership_stream WHERE room_id = $1 AND user_id = $2
       ORDER BY stream_id DESC LIMIT 1`,
      [room.roomId, alice.userId],
    );
    return rows[0]?.membership;
  });
}

/** An operator's request, repeated until it is taken, or has had its effect: its answer may have been lost. */
export async function operate(
  { lane }: Stage,
  room: HostedRoom,
  { what, isDone }: { readonly what: "cancel" | "retry" | "purge"; readonly isDone: () => Promise<boolean> },
): Promise<void> {
  const of = what === "purge" ? "rooms" : "resyncs";
  await insist(what, async () => {
    const token = await readFile(join(lane.settings.dataDir, "operator-token"), "utf8");
    const response = await fetch(`${lane.clientUrl}/_fastjoin/v1/${of}/${encodeURIComponent(room.roomId)}/${what}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token.trim()}`, "content-type": "application/json" },
      body: JSON.stringify({ by: "an operator", why: "a test" }),
    });
    if (!response.ok && !(await isDone())) throw new Error(`${response.status} ${await response.text()}`);
  });
}

/** What the schedule does from time to time. */
export async function reconcile({ lane }: Stage): Promise<void> {
  await insist("a reconcile", async () => {
    await lane.temporal.workflow.execute(RECONCILE_WORKFLOW, {
      workflowId: `${RECONCILE_WORKFLOW}:${crypto.randomUUID()}`,
      taskQueue: defaultTaskQueue(lane.serverName),
    });
  });
}

/** A user of the resident joins a room of ours: make_join, send_join. */
export async function visitorJoins({ lane, resident }: Stage, roomId: RoomId): Promise<UserId> {
  const { serverName: origin, front, world } = resident;
  const user: UserId = `@visitor-${crypto.randomUUID()}:${origin}`;
  const destination = lane.serverName;
  const make = { origin, destination, method: "GET", uri: paths.makeJoin(roomId, user, ["11"]) } as const;
  const template = objectIn(await callServer(world, make));
  const rules = rulesOf("11");
  if (rules === undefined) throw new Error("there is no such room version");
  const pdu = hashAndSignEvent({ ...(template["event"] as Pdu), origin }, origin, front.key, rules);
  const uri = paths.sendJoin(roomId, eventIdOf(pdu, rules), false);
  objectIn(await callServer(world, { origin, destination, method: "PUT", uri, content: pdu }));
  return user;
}

function objectIn({ status, body }: Reply): JsonObject {
  if (status !== 200 || !isJsonObject(body)) throw new Error(`${status} ${JSON.stringify(body)}`);
  return body;
}

/** What is to be the same in the end, whatever has died. */
export interface Aftermath {
  /** (type, state key) pairs of which ours and the resident's have different events. */
  readonly differences: readonly string[];
  /** What was said, each as often as the timeline has it. */
  readonly said: readonly string[];
  /** Our events, by what they say, and in how many transactions each came to the resident. */
  readonly delivered: readonly string[];
  /** Rows of the room that should be gone by now. */
  readonly left: readonly string[];
  /** How the room's resync ended, as Temporal tells it. */
  readonly story: string;
}

const PASSING_TABLES = [
  "partial_state_rooms",
  "partial_state_rooms_servers",
  "partial_state_events",
  "waiting_pdus",
  "resync_state_ids",
];

/** Waits until nothing is under way for the room any more, and says how things are. */
export async function aftermath(stage: Stage, room: HostedRoom, { hasStory = true } = {}): Promise<Aftermath> {
  const { lane, alice, resident } = stage;
  await untilWhole(stage, room);
  await until("the outbox is empty", async () => {
    const { rowCount } = await lane.database.pool.query(
      "SELECT 1 FROM outbox JOIN events USING (event_id) WHERE destination = $1 AND room_id = $2",
      [resident.serverName, room.roomId],
    );
    return rowCount === 0;
  });
  const left: string[] = [];
  await until("nothing waits", async () => {
    left.length = 0;
    for (const table of PASSING_TABLES) if ((await rowsOf(lane, table, room)) > 0) left.push(table);
    return left.length === 0;
  }).catch(() => undefined);
  const ours = await insist("the state", () => alice.fullState(room.roomId));
  const theirs = resident.fullState(room);
  const keys = new Set<string>([...ours.keys(), ...theirs.keys()]);
  return {
    differences: [...keys].filter((key) => ours.get(key) !== theirs.get(key as never)),
    said: await insist("the timeline", () => saidIn(alice, room)),
    delivered: deliveredIn(stage, room),
    left,
    story: hasStory ? await insist("the story", () => storyOf(stage, room)) : "",
  };
}

async function saidIn(alice: HttpClient, room: HostedRoom): Promise<readonly string[]> {
  const path = `rooms/${encodeURIComponent(room.roomId)}/messages?dir=b&limit=100`;
  const { chunk } = await alice.get<{ chunk: { type: string; content: { body?: string } }[] }>(path);
  return chunk
    .filter(({ type }) => type === "m.room.message")
    .map(({ content }) => content.body ?? "")
    .filter((body) => /^(?:ours|theirs),/.test(body))
    .toSorted();
}

function deliveredIn({ lane, resident }: Stage, room: HostedRoom): readonly string[] {
  const times = new Map<EventId, { what: string; times: number }>();
  for (const { origin, pdus } of resident.front.transactions) {
    if (origin !== lane.serverName) continue;
    for (const pdu of pdus as readonly Pdu[]) {
      if (pdu.room_id !== room.roomId) continue;
      const id = eventIdOf(pdu, room.rules);
      const body = pdu.content["body"];
      const { membership } = pdu.content;
      const what = typeof body === "string" ? body : typeof membership === "string" ? membership : pdu.type;
      times.set(id, { what, times: (times.get(id)?.times ?? 0) + 1 });
    }
  }
  return [...times.values()].map((one) => `${one.what}: ${one.times}`).toSorted();
}

async function storyOf({ lane }: Stage, room: HostedRoom): Promise<string> {
  const handle = lane.temporal.workflow.getHandle(resyncWorkflowId(lane.serverName, room.roomId));
  const { status } = await handle.describe();
  if (status.name !== "COMPLETED") throw new Error(`the workflow is ${status.name}`);
  return String(await handle.result());
}
