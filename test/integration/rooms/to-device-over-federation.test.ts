import { describe, expect, it } from "vitest";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import { stringifyJson } from "../../../src/matrix/json.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { openDeviceScene } from "../../support/device-scene.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const { resident, sidecar, aUser, enter, tell, edusAt, delivered, fronts } = await openDeviceScene();
const [first, second] = fronts;

const texts = (synced: Body): readonly unknown[] =>
  (synced.to_device?.events ?? []).map((event: Body) => event.content.text);

function direct(sender: UserId, messageId: string, to: TestClient, text: string): JsonObject {
  const messages = { [to.userId]: { [to.deviceId]: { text } } };
  return { sender, type: "org.example.note", message_id: messageId, messages };
}

describe("m.direct_to_device", () => {
  it("is delivered once, however often it comes, and wakes a sync that waits in a partial room", async () => {
    const alice = await aUser();
    const { complete } = await enter(alice);
    const { next_batch: since } = await alice.sync();
    const waiting = alice.sync({ since, timeout: "600000" });
    await tell(second, "m.direct_to_device", direct(second.user, "m1", alice, "once"));
    const first1 = await waiting;
    expect(first1.to_device.events).toEqual([
      { sender: second.user, type: "org.example.note", content: { text: "once" } },
    ]);
    await tell(second, "m.direct_to_device", direct(second.user, "m1", alice, "once"));
    await tell(second, "m.direct_to_device", direct(second.user, "m2", alice, "another"));
    expect(texts(await alice.sync({ since: first1.next_batch }))).toEqual(["another"]);
    await complete();
  });

  it("with the id of another server's message is another message", async () => {
    const alice = await aUser();
    await tell(first, "m.direct_to_device", direct(first.user, "same", alice, "from the first"));
    await tell(second, "m.direct_to_device", direct(second.user, "same", alice, "from the second"));
    expect(texts(await alice.sync())).toEqual(["from the first", "from the second"]);
  });

  it("is taken from the sender's own server only", async () => {
    const alice = await aUser();
    await tell(first, "m.direct_to_device", direct(second.user, "forged", alice, "forged"));
    expect(texts(await alice.sync())).toEqual([]);
  });

  it.each([
    {},
    { sender: "@x:y", type: "t", message_id: "m", messages: [] },
    { sender: "@x:y", type: "t", message_id: "m\0", messages: {} },
    { sender: "@x:y", type: "t", message_id: "m", messages: { "@a:b": { D: "text" } } },
  ])("that can't be read (%j) does not block its transaction", async (content) => {
    const alice = await aUser();
    const { room } = await enter(alice);
    const message = await resident.sendMessage(room, second.user, "beside it", { push: false });
    const edus = [
      { edu_type: "m.direct_to_device", content },
      { edu_type: "m.device_list_update", content },
      { edu_type: "m.signing_key_update", content },
    ];
    const sending = { origin: second.serverName, pdus: [message.event.pdu as unknown as JsonObject] };
    const [result] = await resident.sendEdus([sidecar.serverName], edus, sending);
    expect(result).toMatchObject({ status: 200, body: { pdus: { [message.eventId]: {} } } });
    const path = `rooms/${encodeURIComponent(room.roomId)}/event/${encodeURIComponent(message.eventId)}`;
    expect((await alice.call("GET", path)).status).toBe(200);
  });
});

describe("sendToDevice to users of other servers", () => {
  it("sends each server its users' messages, once for each transaction id", async () => {
    const alice = await aUser();
    const neighbor = `@neighbor:${second.serverName}`;
    const messages = {
      [first.user]: { "*": { text: "one" } },
      [second.user]: { PHONE: { text: "two" } },
      [neighbor]: { PHONE: { text: "three" } },
    };
    for (let count = 0; count < 2; count += 1) {
      await alice.ok("PUT", "sendToDevice/org.example.note/same", { body: { messages } });
    }
    await delivered();
    const at = (front: typeof first): readonly JsonObject[] => edusAt(front, "m.direct_to_device", alice.userId);
    expect(at(first)).toHaveLength(1);
    expect(at(first)[0]).toMatchObject({ type: "org.example.note", messages: { [first.user]: messages[first.user] } });
    expect(at(second)).toHaveLength(1);
    expect(at(second)[0]?.["messages"]).toEqual({
      [second.user]: messages[second.user],
      [neighbor]: messages[neighbor],
    });
    const [one, two] = [at(first), at(second)].map(([edu]) => stringifyJson(edu?.["message_id"] ?? null));
    expect(one).not.toBe(two);
  });
});
