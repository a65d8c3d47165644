import { describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../src/matrix/identifiers.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue } from "../../src/matrix/json.ts";
import { eventually, fastjoin } from "../support/sidecar-process.ts";
import { openSynapseScene } from "../support/synapse/scene.ts";
import {
  callAs,
  createSynapseRoom,
  joinOnSynapse,
  registerUser,
  sendMessage,
} from "../support/synapse/synapse-client.ts";

const { synapse, settings, sidecar, alice } = await openSynapseScene();
const admin = await registerUser(synapse, "admin");
const carol = await registerUser(synapse, "carol");

const key = encodeURIComponent;
const LAZY = key(JSON.stringify({ room: { state: { lazy_load_members: true } } }));

/** A room of Synapse's that our user has joined. */
async function aJoinedRoom(): Promise<RoomId> {
  const roomId = await createSynapseRoom(admin, { version: "11" });
  await joinOnSynapse(carol, roomId);
  const joined = await fastjoin(settings.env, "join", roomId, "--via", synapse.serverName, "--as", "alice");
  expect(joined).toMatchObject({ code: 0, stderr: "" });
  return roomId;
}

function contentsIn(answer: JsonObject, roomId: RoomId, type: string): readonly JsonObject[] {
  let value: JsonValue | undefined = answer;
  for (const name of ["rooms", "join", roomId, "ephemeral", "events"]) {
    value = isJsonObject(value) ? value[name] : undefined;
  }
  const events = isJsonArray(value) ? value.filter(isJsonObject) : [];
  return events
    .filter((event) => event["type"] === type)
    .flatMap(({ content }) => (isJsonObject(content) ? [content] : []));
}

interface Watch {
  /** What the syncs since the watch began have told of the room, oldest first. */
  seen(roomId: RoomId, type: string): Promise<readonly JsonObject[]>;
}

/** Goes on from sync to sync, as Synapse answers a repeated first sync from its cache. */
function watch(sync: (query: string) => Promise<JsonObject>): Watch {
  let since: string | undefined;
  const answers: JsonObject[] = [];
  return {
    async seen(roomId, type) {
      const answer = await sync(`filter=${LAZY}${since === undefined ? "" : `&since=${since}`}`);
      since = answer["next_batch"] as string;
      answers.push(answer);
      return answers.flatMap((one) => contentsIn(one, roomId, type));
    },
  };
}

const ofAlice = (): Watch => watch((query) => alice.get(`sync?${query}`));
const ofAdmin = (): Watch => watch((query) => callAs(admin, "GET", `/sync?${query}`));

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  await eventually(async () => ((await holds()) ? true : undefined), {
    withinMs: 60_000,
    about: () => `${what}: ${sidecar.output().slice(-3000)}`,
  });
}

async function untilTyping(by: Watch, roomId: RoomId, userIds: readonly string[]): Promise<void> {
  await until(`those who type are [${userIds.join(", ")}]`, async () => {
    const last = (await by.seen(roomId, "m.typing")).at(-1)?.["user_ids"];
    return isJsonArray(last) && last.length === userIds.length && userIds.every((one) => last.includes(one));
  });
}

async function untilRead(
  by: Watch,
  roomId: RoomId,
  read: { readonly eventId: EventId; readonly userId: string },
): Promise<void> {
  await until(`${read.userId} has read ${read.eventId}`, async () =>
    (await by.seen(roomId, "m.receipt")).some((content) => {
      const ofEvent = content[read.eventId];
      const readers = isJsonObject(ofEvent) ? ofEvent["m.read"] : undefined;
      return isJsonObject(readers) && readers[read.userId] !== undefined;
    }),
  );
}

describe("beside a real Synapse", () => {
  it("who types is shown on both sides, and that they cease", async () => {
    const roomId = await aJoinedRoom();
    const typing = { typing: true, timeout: 60_000 };
    const [ours, theirs] = [ofAlice(), ofAdmin()];
    await callAs(carol, "PUT", `/rooms/${key(roomId)}/typing/${key(carol.userId)}`, typing);
    await untilTyping(ours, roomId, [carol.userId]);
    await callAs(carol, "PUT", `/rooms/${key(roomId)}/typing/${key(carol.userId)}`, { typing: false });
    await untilTyping(ours, roomId, []);

    await alice.put(`rooms/${key(roomId)}/typing/${key(alice.userId)}`, typing);
    await untilTyping(theirs, roomId, [alice.userId]);
    await alice.put(`rooms/${key(roomId)}/typing/${key(alice.userId)}`, { typing: false });
    await untilTyping(theirs, roomId, []);
  });

  it("what was read is shown on both sides", async () => {
    const roomId = await aJoinedRoom();
    const theirs = await sendMessage(admin, roomId, "hello from Synapse");
    await alice.sees(roomId, theirs);
    await alice.post(`rooms/${key(roomId)}/receipt/m.read/${key(theirs)}`);
    await untilRead(ofAdmin(), roomId, { eventId: theirs, userId: alice.userId });
    const ours = (await alice.say(roomId, "hello from Fastjoin")) as EventId;
    await until("Synapse has our message", async () => {
      const path = `/rooms/${key(roomId)}/event/${key(ours)}`;
      return await callAs(carol, "GET", path).then(
        () => true,
        () => false,
      );
    });
    await callAs(carol, "POST", `/rooms/${key(roomId)}/receipt/m.read/${key(ours)}`, { thread_id: "main" });
    await untilRead(ofAlice(), roomId, { eventId: ours, userId: carol.userId });
  });

  it("who is online is shown on both sides", async () => {
    const roomId = await aJoinedRoom();
    await callAs(carol, "PUT", `/presence/${key(carol.userId)}/status`, { presence: "online", status_msg: "reading" });
    await until("carol is online", async () => {
      const status = await alice.get<JsonObject>(`presence/${key(carol.userId)}/status`);
      return status["presence"] === "online" && status["status_msg"] === "reading";
    });
    await alice.put(`presence/${key(alice.userId)}/status`, { presence: "online", status_msg: `in ${roomId}` });
    await until("alice is online", async () => {
      const status = await callAs(admin, "GET", `/presence/${key(alice.userId)}/status`);
      return status["presence"] === "online" && status["status_msg"] === `in ${roomId}`;
    });
  });
});
