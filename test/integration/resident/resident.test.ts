import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { paths } from "../../../src/federation-api/endpoints.ts";
import type { Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject, JsonValue } from "../../../src/matrix/json.ts";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import { hashAndSignEvent } from "../../../src/matrix/signatures.ts";
import { memberId } from "../../resident/generate-room.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { listOf, objectOf, startJoiningServer } from "../../resident/joining-server.ts";
import type { JoinAnswer, JoiningServer } from "../../resident/joining-server.ts";
import type { Reply } from "../../resident/outbound.ts";
import { startResident } from "../../resident/resident.ts";
import type { Resident } from "../../resident/resident.ts";

let resident: Resident;
let joiner: JoiningServer;

beforeAll(async () => {
  resident = await startResident({ fronts: 2 });
  joiner = await startJoiningServer();
});
afterAll(async () => {
  await resident.close();
  await joiner.close();
});
beforeEach(() => {
  for (const front of resident.fronts) resident.clearTrouble(front);
});

async function ask(uri: string, method: "GET" | "PUT" | "POST" = "GET", content?: JsonValue): Promise<Reply> {
  return await joiner.ask(resident.serverName, uri, method === "GET" ? undefined : { method, content: content ?? {} });
}

async function join(room: HostedRoom, omitMembers: boolean): Promise<JoinAnswer> {
  return await joiner.join(resident.serverName, room, omitMembers);
}

function typesIn(pdus: readonly JsonValue[]): string[] {
  return pdus.map((pdu) => String((pdu as Pdu).type));
}

describe.each(ROOM_VERSIONS)("a room of version %s", (version) => {
  it("can be joined without its members, and then tells its state", async () => {
    const room = resident.hostRoom({ version });
    const { body, eventId, user } = await join(room, true);
    expect(body["members_omitted"]).toBe(true);
    expect(typesIn(listOf(body, "state"))).not.toContain("m.room.member");
    expect(typesIn(listOf(body, "state"))).toContain("m.room.create");
    expect(listOf(body, "servers_in_room")).toContain("server-004.rooms.test");
    expect(resident.membership(room, user)).toBe("join");

    const ids = objectOf(await ask(paths.stateIds(room.roomId, eventId)));
    const state = new Set([...listOf(ids, "pdu_ids"), eventId]);
    expect(state).toEqual(new Set(resident.fullState(room).values()));

    const whole = objectOf(await ask(paths.state(room.roomId, eventId)));
    const served = listOf(whole, "pdus").map((pdu) => eventIdOf(pdu as Pdu, room.rules));
    expect(new Set(served)).toEqual(new Set(listOf(ids, "pdu_ids")));
    const chain = listOf(whole, "auth_chain").map((pdu) => eventIdOf(pdu as Pdu, room.rules));
    expect(new Set(chain)).toEqual(new Set(listOf(ids, "auth_chain_ids")));
  });
});

describe("send_join", () => {
  it("tells all members where they are not to be omitted, and refuses other words than true and false", async () => {
    const room = resident.hostRoom({});
    const { body } = await join(room, false);
    expect(body["members_omitted"]).toBe(false);
    expect(typesIn(listOf(body, "state")).filter((type) => type === "m.room.member").length).toBeGreaterThan(49);
    const reply = await ask(paths.sendJoin(room.roomId, "$x", true).replace("true", "yes"), "PUT", {});
    expect(reply).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });

  it("names heroes where the room has no name", async () => {
    const { body } = await join(resident.hostRoom({ named: false }), true);
    expect(typesIn(listOf(body, "state")).filter((type) => type === "m.room.member")).toHaveLength(5);
  });

  it("adds the resident's signature in a restricted room", async () => {
    const { body, user, room } = await join(resident.hostRoom({ version: "10", joinRule: "restricted" }), true);
    expect((body["event"] as Pdu).signatures).toHaveProperty(resident.serverName.replaceAll(".", "\\."));
    expect(resident.membership(room, user)).toBe("join");
  });
});

describe("make_join", () => {
  it("refuses who is not invited, and an unknown room version", async () => {
    const room = resident.hostRoom({ joinRule: "invite" });
    const user = joiner.newUser();
    expect(await ask(paths.makeJoin(room.roomId, user, ["11"]))).toMatchObject({ status: 403 });
    expect(await ask(paths.makeJoin(room.roomId, user, ["4"]))).toMatchObject({
      status: 400,
      body: { errcode: "M_INCOMPATIBLE_ROOM_VERSION", room_version: "11" },
    });
  });
});

describe("send", () => {
  it("pushes an event to the servers that joined, and takes theirs", async () => {
    const { room, user } = await join(resident.hostRoom({}), true);
    const sent = await resident.sendMessage(room, resident.founder, "hello");
    expect(sent.results).toMatchObject([{ to: joiner.serverName, status: 200 }]);
    const transaction = joiner.front.transactions.at(-1);
    expect(transaction?.pdus.map((pdu) => eventIdOf(pdu as Pdu, room.rules))).toEqual([sent.eventId]);

    const auth = ["m.room.power_levels", "m.room.create"].map((type) => resident.fullState(room).get(`${type}\u001f`));
    const own = resident.fullState(room).get(`m.room.member\u001f${user}`);
    const answer: Pdu = {
      room_id: room.roomId,
      type: "m.room.message",
      sender: user,
      content: { body: "hello yourself", msgtype: "m.text" },
      prev_events: [sent.eventId],
      auth_events: [...auth, own].filter((id) => id !== undefined),
      depth: 9999,
      origin_server_ts: Date.now(),
    };
    const pdu = hashAndSignEvent(answer, joiner.serverName, joiner.front.key, room.rules);
    const body = { origin: joiner.serverName, origin_server_ts: 1, pdus: [pdu] };
    const eventId = eventIdOf(pdu, room.rules);
    expect(objectOf(await ask(paths.send("t1"), "PUT", body))).toEqual({ pdus: { [eventId]: {} } });
    const came = await resident.waitForEvent((event) => event.eventId === eventId);
    expect(came.rejected).toBe(false);
    expect([...room.extremities]).toEqual([eventId]);
  });

  it("refuses an event with a broken signature", async () => {
    const { room, body } = await join(resident.hostRoom({}), true);
    const forged = { ...(body["event"] as Pdu), depth: 5 };
    const reply = await ask(paths.send("t2"), "PUT", {
      origin: joiner.serverName,
      origin_server_ts: 1,
      pdus: [forged],
    });
    expect(JSON.stringify(reply.body)).toContain("signature");
    expect(room.events.has(eventIdOf(forged, room.rules))).toBe(false);
  });
});

describe("invite", () => {
  it("lets a user of another server in where only the invited may join", async () => {
    const room = resident.hostRoom({ joinRule: "invite", label: "by invitation" });
    const user = joiner.newUser();
    const { event } = await resident.invite(room, user);
    expect(Object.keys(event.pdu.signatures ?? {})).toContain(joiner.serverName);
    const { pdu, eventId } = await joiner.signedJoin(resident.serverName, room, user);
    expect(await ask(paths.sendJoin(room.roomId, eventId, true), "PUT", pdu)).toMatchObject({ status: 200 });
    expect(resident.membership(room, user)).toBe("join");
  });
});

describe("make_leave and send_leave", () => {
  it("take a member out of the room", async () => {
    const { room, user } = await join(resident.hostRoom({}), true);
    const template = objectOf(await ask(paths.makeLeave(room.roomId, user)))["event"] as Pdu;
    const pdu = hashAndSignEvent(template, joiner.serverName, joiner.front.key, room.rules);
    const reply = await ask(paths.sendLeave(room.roomId, eventIdOf(pdu, room.rules)), "PUT", pdu);
    expect(reply).toEqual({ status: 200, body: {} });
    expect(resident.membership(room, user)).toBe("leave");
    expect((await ask(paths.stateIds(room.roomId, eventIdOf(pdu, room.rules)))).status).toBe(403);
  });
});

describe("query_keys", () => {
  it("answers for every virtual server, with the notary's signature beside the server's own", async () => {
    const servers = ["server-000.rooms.test", "server-001.rooms.test"];
    const wanted = Object.fromEntries(servers.map((server) => [server, {}]));
    const body = objectOf(await ask(paths.queryKeys(), "POST", { server_keys: wanted }));
    const keys = listOf(body, "server_keys").map((one) => one as JsonObject);
    expect(keys.map((one) => one["server_name"])).toEqual(servers);
    for (const [index, one] of keys.entries()) {
      expect(new Set(Object.keys(one["signatures"] as JsonObject))).toEqual(
        new Set([servers[index], resident.serverName]),
      );
    }
  });
});

describe("get_missing_events and backfill", () => {
  it("tell what lies between, but not what is withheld", async () => {
    const { room, eventId } = await join(resident.hostRoom({}), true);
    const first = await resident.sendMessage(room, resident.founder, "first", { push: false });
    const second = await resident.sendMessage(room, resident.founder, "second", { push: false });
    const third = await resident.sendMessage(room, resident.founder, "third");
    const query = { earliest_events: [eventId], latest_events: [third.eventId], limit: 10 };
    const idsOf = (reply: Reply, name: string): EventId[] =>
      listOf(objectOf(reply), name).map((pdu) => eventIdOf(pdu as Pdu, room.rules));
    const missing = await ask(paths.getMissingEvents(room.roomId), "POST", query);
    expect(idsOf(missing, "events")).toEqual([first.eventId, second.eventId]);
    resident.withhold(room, second.eventId);
    expect(idsOf(await ask(paths.getMissingEvents(room.roomId), "POST", query), "events")).toEqual([]);
    expect(await ask(paths.event(second.eventId))).toMatchObject({ status: 404 });
    resident.reveal(room, second.eventId);
    const before = await ask(paths.backfill(room.roomId, [third.eventId], 3));
    expect(idsOf(before, "pdus")).toEqual([third.eventId, second.eventId, first.eventId]);
  });
});

describe("trouble", () => {
  it("refuses for a while, by front", async () => {
    const { room, eventId } = await join(resident.hostRoom({}), true);
    resident.trouble({ kind: "refuse", status: 403, at: "state_ids", times: 1 });
    resident.trouble({ kind: "refuse", status: 502 }, resident.fronts[1]);
    expect((await ask(paths.stateIds(room.roomId, eventId))).status).toBe(403);
    expect((await ask(paths.stateIds(room.roomId, eventId))).status).toBe(200);
    const other = await joiner.ask(resident.fronts[1]?.serverName ?? "", paths.stateIds(room.roomId, eventId));
    expect(other.status).toBe(502);
  });

  it("breaks connections and answers", async () => {
    const { room, eventId } = await join(resident.hostRoom({}), true);
    const uri = paths.state(room.roomId, eventId);
    for (const kind of ["reset", "garbage", "half-body"] as const) {
      const end = resident.trouble({ kind, at: "state" });
      await expect(ask(uri), kind).rejects.toThrow();
      end();
    }
    expect((await ask(uri)).status).toBe(200);
  });

  it("can be dead and come back on the same port", async () => {
    await resident.front.close();
    await expect(ask(paths.version())).rejects.toThrow();
    await resident.front.listen();
    expect((await ask(paths.version())).status).toBe(200);
  });

  it("slows down an answer", async () => {
    resident.trouble({ kind: "slow", delayMs: 3_000, at: "version" });
    const first = await Promise.race([
      ask(paths.version()).then(() => "slow"),
      ask(paths.serverKeys()).then(() => "quick"),
    ]);
    expect(first).toBe("quick");
  });

  it("lies about the state, the chain and the members", async () => {
    const { room, eventId } = await join(resident.hostRoom({}), true);
    const all = listOf(objectOf(await ask(paths.stateIds(room.roomId, eventId))), "pdu_ids");
    resident.trouble({ kind: "lie", lie: "missing-state", every: 2, at: "state_ids" });
    resident.trouble({ kind: "lie", lie: "missing-auth" });
    const told = objectOf(await ask(paths.stateIds(room.roomId, eventId)));
    expect(listOf(told, "pdu_ids")).toHaveLength(Math.ceil(all.length / 2));
    expect(told["auth_chain_ids"]).toEqual([]);
    resident.clearTrouble();
    resident.trouble({ kind: "lie", lie: "hide-server", server: "server-001.rooms.test" });
    resident.trouble({ kind: "lie", lie: "other-create", where: "auth_chain" });
    const { body } = await join(room, true);
    expect(listOf(body, "servers_in_room")).not.toContain("server-001.rooms.test");
    expect(typesIn(listOf(body, "auth_chain"))).toContain("m.room.create");
    expect(typesIn(listOf(body, "state"))).toContain("m.room.create");
  });
});

describe("forks and refused events", () => {
  it("are resolved, and kept as rejected", async () => {
    const { room } = await join(resident.hostRoom({ members: 20 }), true);
    const [before] = [...room.extremities];
    if (before === undefined) throw new Error("no extremity");
    const prevEvents = [before];
    const member = memberId(1, { servers: 5 });
    const topic = (text: string): { type: string; content: JsonObject } => ({
      type: "m.room.topic",
      content: { topic: text },
    });
    const left = await resident.sendState(room, topic("left"), { prevEvents });
    const right = await resident.sendState(room, topic("right"), { prevEvents });
    expect(room.extremities).toEqual(new Set([left.eventId, right.eventId]));
    const merged = await resident.sendMessage(room, member, "together");
    expect(room.extremities).toEqual(new Set([merged.eventId]));
    expect([left.eventId, right.eventId]).toContain(resident.fullState(room).get("m.room.topic\u001f"));

    const banned = memberId(3, { servers: 5 });
    await resident.ban(room, banned);
    await expect(resident.sendMessage(room, banned, "I am still here")).rejects.toThrow("may not");
    const refused = await resident.sendMessage(room, banned, "I am still here", { evenIfRejected: true });
    expect(refused.event.rejected).toBe(true);
    expect(room.extremities.has(refused.eventId)).toBe(false);
  });
});
