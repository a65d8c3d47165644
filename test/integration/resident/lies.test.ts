import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { contentHashMatches, eventIdOf } from "../../../src/matrix/hashes.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { verifyEventSignatures } from "../../../src/matrix/signatures.ts";
import { memberId } from "../../resident/generate-room.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { listOf, objectOf, startJoiningServer } from "../../resident/joining-server.ts";
import type { JoiningServer } from "../../resident/joining-server.ts";
import { startResident } from "../../resident/resident.ts";
import type { Resident } from "../../resident/resident.ts";
import type { Lie, Trouble } from "../../resident/trouble.ts";
import { keyLookupOf } from "../../resident/world.ts";

let resident: Resident;
let joiner: JoiningServer;
let room: HostedRoom;

beforeAll(async () => {
  resident = await startResident();
  joiner = await startJoiningServer();
  room = resident.hostRoom({ label: "lies" });
});
afterAll(async () => {
  await resident.close();
  await joiner.close();
});
afterEach(() => resident.clearTrouble());

function lie(told: Lie): void {
  resident.trouble({ kind: "lie", ...told } as Trouble);
}

async function joinBody(omitMembers = true): Promise<JsonObject> {
  return (await joiner.join(resident.serverName, room, omitMembers)).body;
}

async function stateBody(): Promise<JsonObject> {
  const { eventId } = await joiner.join(resident.serverName, room, true);
  return objectOf(await joiner.ask(resident.serverName, paths.state(room.roomId, eventId)));
}

function pdusOf(list: readonly JsonValue[], type: string): Pdu[] {
  return list.map((pdu) => pdu as Pdu).filter((pdu) => pdu.type === type);
}

function members(body: JsonObject): number {
  return pdusOf(listOf(body, "state"), "m.room.member").length;
}

describe("a resident that lies in its answer to send_join", () => {
  it("gives another create event in the place of the true one", async () => {
    lie({ lie: "other-create", where: "state" });
    const creates = pdusOf(listOf(await joinBody(), "state"), "m.room.create");
    expect(creates).toHaveLength(1);
    const [create] = creates;
    expect(create && contentHashMatches(create, room.rules)).toBe(true);
    expect(create && room.events.has(eventIdOf(create, room.rules))).toBe(false);
  });

  it("gives no create event", async () => {
    lie({ lie: "no-create" });
    expect(pdusOf(listOf(await joinBody(), "state"), "m.room.create")).toEqual([]);
  });

  it("leaves members out and tells no servers", async () => {
    lie({ lie: "no-servers-in-room" });
    const body = await joinBody();
    expect([body["members_omitted"], members(body), body["servers_in_room"]]).toEqual([true, 0, undefined]);
  });

  it("leaves members out although nobody asked", async () => {
    lie({ lie: "omit-unasked" });
    const body = await joinBody(false);
    expect([body["members_omitted"], members(body)]).toEqual([true, 0]);
  });

  it("hides that members were left out", async () => {
    lie({ lie: "members-omitted", says: false });
    const body = await joinBody();
    expect([body["members_omitted"], members(body)]).toEqual([false, 0]);
  });

  it("refuses, honestly, to leave members out", async () => {
    resident.trouble({ kind: "full-join" });
    const body = await joinBody();
    expect(body["members_omitted"]).toBe(false);
    expect(members(body)).toBeGreaterThan(50);
  });
});

describe("a resident that lies in its templates", () => {
  it("names another room version, or another user", async () => {
    const user = joiner.newUser();
    const uri = paths.makeJoin(room.roomId, user, ["11"]);
    lie({ lie: "room-version", version: "3" });
    lie({ lie: "template", changes: { state_key: "@else:where.test" } });
    const body = objectOf(await joiner.ask(resident.serverName, uri));
    expect(body["room_version"]).toBe("3");
    expect(body["event"]).toMatchObject({ sender: user, state_key: "@else:where.test" });
  });
});

describe("a resident that lies about state", () => {
  it("puts another event in the place of the true one", async () => {
    const [create] = room.events.keys();
    const member = memberId(10, { servers: 5 });
    lie({ lie: "replace-state", type: "m.room.topic", stateKey: "", eventId: create as EventId });
    lie({ lie: "replace-state", type: "m.room.member", stateKey: member, eventId: null });
    const served = listOf(await stateBody(), "pdus");
    expect(pdusOf(served, "m.room.topic")).toEqual([]);
    expect(pdusOf(served, "m.room.member").map((pdu) => pdu.state_key)).not.toContain(member);
  });

  it("has none at all", async () => {
    lie({ lie: "empty-state" });
    expect(listOf(await stateBody(), "pdus")).toEqual([]);
  });

  it("serves events with a false signature, or a changed content", async () => {
    lie({ lie: "bad-signature", type: "m.room.topic" });
    lie({ lie: "bad-content", type: "m.room.name" });
    const served = listOf(await stateBody(), "pdus");
    const [topic] = pdusOf(served, "m.room.topic");
    const [name] = pdusOf(served, "m.room.name");
    if (topic === undefined || name === undefined) throw new Error("no topic or name");
    const keys = keyLookupOf(resident.world);
    expect(verifyEventSignatures(topic, room.rules, eventIdOf(topic, room.rules), keys)).toMatchObject({
      valid: false,
    });
    expect(contentHashMatches(topic, room.rules)).toBe(true);
    expect(contentHashMatches(name, room.rules)).toBe(false);
  });

  it("adds a foreign event to the auth chain", async () => {
    lie({ lie: "foreign-auth", pdu: { type: "m.test", room_id: "!other:room.test" } });
    expect(pdusOf(listOf(await stateBody(), "auth_chain"), "m.test")).toHaveLength(1);
  });
});

describe("a resident in trouble", () => {
  it("does not give the keys of some servers", async () => {
    const servers = ["server-000.rooms.test", "server-001.rooms.test"];
    resident.trouble({ kind: "no-keys", servers: ["server-001.rooms.test"] });
    const content = { server_keys: Object.fromEntries(servers.map((server) => [server, {}])) };
    const body = objectOf(await joiner.ask(resident.serverName, paths.queryKeys(), { method: "POST", content }));
    expect(listOf(body, "server_keys").map((keys) => (keys as JsonObject)["server_name"])).toEqual([servers[0]]);
  });

  it("never answers", async () => {
    resident.trouble({ kind: "hang", at: "version" });
    const asked = joiner.ask(resident.serverName, paths.version()).then(
      () => "answered",
      () => "failed",
    );
    const first = await Promise.race([asked, new Promise((resolve) => setTimeout(resolve, 500, "nothing yet"))]);
    expect(first).toBe("nothing yet");
  });

  it("stops at a time that was set", async () => {
    resident.trouble({ kind: "refuse", status: 503, at: "version", until: Date.now() + 3_000 });
    const status = async (): Promise<number> => (await joiner.ask(resident.serverName, paths.version())).status;
    expect(await status()).toBe(503);
    await expect.poll(status).toBe(200);
  });
});
