import { describe, expect, it } from "vitest";
import type { JsonObject } from "../../src/matrix/json.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import { generateDevice, type TestDevice } from "../support/signed-device.ts";
import { eventually, fastjoin } from "../support/sidecar-process.ts";
import { openSynapseScene } from "../support/synapse/scene.ts";
import { callAs, createSynapseRoom, joinOnSynapse, registerUser } from "../support/synapse/synapse-client.ts";

const { synapse, settings, sidecar, alice } = await openSynapseScene();
const bob = await registerUser(synapse, "bob");
const others = await Promise.all(Array.from({ length: 5 }, (_, index) => registerUser(synapse, `other${index}`)));

type Answer = Record<string, JsonObject | undefined>;

/** The device's keys as a server shows them, without what it adds for its own users. */
function shownKeys(answer: JsonObject, { userId, deviceId }: TestDevice): JsonObject | undefined {
  const users = answer["device_keys"] as Answer;
  const keys = users[userId]?.[deviceId];
  if (!isJsonObject(keys)) return undefined;
  const { unsigned: _unsigned, ...rest } = keys;
  return rest;
}

/** One answer after the other, as a client asks: Synapse has the same answer for the same question. */
function answersOf(sync: (since: string) => Promise<JsonObject>, from: string): () => Promise<JsonObject> {
  let since = from;
  return async () => {
    const answer = await sync(since);
    since = answer["next_batch"] as string;
    return answer;
  };
}

const within = (what: string): { readonly withinMs: number; readonly about: () => string } => ({
  withinMs: 60_000,
  about: () => `${what} did not come: ${sidecar.output().slice(-4000)}`,
});

describe("devices in a room that is joined partially through a real Synapse", () => {
  it("are told both ways, with one-time keys and messages to devices", async () => {
    const roomId = await createSynapseRoom(bob, { version: "11" });
    for (const other of others) await joinOnSynapse(other, roomId);
    const joined = await fastjoin(settings.env, "join", roomId, "--via", synapse.serverName, "--as", "alice");
    expect(joined.stdout).toContain("its state is partial");

    const [{ device_id: ours }, theirs] = [
      await alice.get<{ device_id: string }>("account/whoami"),
      await callAs(bob, "GET", "/account/whoami"),
    ];
    const aliceDevice = generateDevice(alice.userId, ours);
    const bobDevice = generateDevice(bob.userId, theirs["device_id"] as string);
    const { next_batch: aliceSince } = await alice.get<{ next_batch: string }>("sync");
    const bobSince = (await callAs(bob, "GET", "/sync?timeout=0"))["next_batch"] as string;

    await alice.post("keys/upload", { device_keys: aliceDevice.keys, one_time_keys: aliceDevice.oneTimeKeys("A") });
    await eventually(async () => {
      const answer = await callAs(bob, "POST", "/keys/query", { device_keys: { [alice.userId]: [] } });
      return shownKeys(answer, aliceDevice) === undefined ? undefined : true;
    }, within("the keys of our device"));
    const seen = await callAs(bob, "POST", "/keys/query", { device_keys: { [alice.userId]: [] } });
    expect(shownKeys(seen, aliceDevice)).toEqual(aliceDevice.keys);
    const bobSees = answersOf(async (since) => callAs(bob, "GET", `/sync?timeout=1000&since=${since}`), bobSince);
    await eventually(async () => {
      const { device_lists: lists } = await bobSees();
      const changed = isJsonObject(lists) ? lists["changed"] : undefined;
      return Array.isArray(changed) && changed.includes(alice.userId) ? true : undefined;
    }, within("the change of our devices"));

    const wanted = { one_time_keys: { [alice.userId]: { [ours]: "signed_curve25519" } } };
    const claimed = await callAs(bob, "POST", "/keys/claim", wanted);
    expect(claimed["one_time_keys"]).toEqual({ [alice.userId]: { [ours]: aliceDevice.oneTimeKeys("A") } });

    await callAs(bob, "PUT", "/sendToDevice/org.example.note/1", {
      messages: { [alice.userId]: { "*": { text: "hello" } } },
    });
    await eventually(async () => {
      const synced = await alice.get<{ to_device?: { events: unknown[] } }>(`sync?since=${aliceSince}&timeout=1000`);
      return synced.to_device?.events.length === 1 ? true : undefined;
    }, within("the message to our device"));

    await eventually(
      async () => ((await fastjoin(settings.env, "show", roomId)).stdout.includes("complete") ? true : undefined),
      within("the end of the resync"),
    );
    const { next_batch: since } = await alice.get<{ next_batch: string }>("sync");
    expect((await alice.post<JsonObject>("keys/query", { device_keys: { [bob.userId]: [] } }))["device_keys"]).toEqual({
      [bob.userId]: {},
    });
    await callAs(bob, "POST", "/keys/upload", { device_keys: bobDevice.keys });
    await eventually(async () => {
      const synced = await alice.get<{ device_lists?: { changed: string[] } }>(`sync?since=${since}&timeout=1000`);
      return synced.device_lists?.changed.includes(bob.userId) === true ? true : undefined;
    }, within("the change of their devices"));
    await eventually(async () => {
      const answer = await alice.post<JsonObject>("keys/query", { device_keys: { [bob.userId]: [] } });
      return shownKeys(answer, bobDevice) === undefined ? undefined : true;
    }, within("the keys of their device"));

    await alice.put("sendToDevice/org.example.note/1", { messages: { [bob.userId]: { "*": { text: "hello too" } } } });
    await eventually(async () => {
      const { to_device: messages } = await bobSees();
      return isJsonObject(messages) && Array.isArray(messages["events"]) && messages["events"].length === 1
        ? true
        : undefined;
    }, within("the message to their device"));
  });
});
