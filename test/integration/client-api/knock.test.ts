import { describe, expect, it } from "vitest";
import type { Pdu } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { insertOutliers } from "../../../src/storage/events.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { empower, openClientScene } from "../../support/client-scene.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const scene = await openClientScene({ fronts: 2 });
const { resident, sidecar, aUser, hostRoom } = scene;
const [front, other] = resident.fronts as [(typeof resident.fronts)[0], (typeof resident.fronts)[0]];
const key = encodeURIComponent;
const KNOCK = { joinRule: "knock" } as const;

async function knock(client: TestClient, room: HostedRoom, via: readonly string[] = [front.serverName]) {
  const query = via.map((server) => `via=${key(server)}`).join("&");
  return await client.call("POST", `knock/${key(room.roomId)}?${query}`, { body: { reason: "let me in" } });
}

const typesOf = (events: readonly Body[]): string[] => events.map((event) => event.type).toSorted();

describe("a knock on a room that we are not in", () => {
  it("is taken by the resident, and shown to the user with what it told of the room", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    const { next_batch: since } = await client.sync();
    await client.ok("PUT", `profile/${key(client.userId)}/displayname`, { body: { displayname: "Alice" } });
    expect(await knock(client, room)).toMatchObject({ status: 200, body: { room_id: room.roomId } });

    expect(resident.membership(room, client.userId)).toBe("knock");
    const event = await resident.waitForEvent((one) => one.pdu.sender === client.userId);
    expect(event.pdu.content).toEqual({ membership: "knock", reason: "let me in", displayname: "Alice" });
    const { events } = (await client.sync({ since })).rooms.knock[room.roomId].knock_state;
    expect(typesOf(events)).toEqual(["m.room.create", "m.room.join_rules", "m.room.member", "m.room.name"]);
    expect(events.find((one: Body) => one.type === "m.room.member")).toEqual({
      type: "m.room.member",
      state_key: client.userId,
      sender: client.userId,
      content: event.pdu.content,
    });
  });

  it.each(["unreachable", "not in the room", "in trouble"] as const)(
    "goes to the next server where the first is %s",
    async (fault) => {
      const room = hostRoom(KNOCK);
      const client = await aUser();
      const [at, status] = fault === "in trouble" ? (["send_knock", 500] as const) : (["make_knock", 404] as const);
      const end = resident.trouble({ kind: "refuse", status, errcode: "M_NOT_FOUND", at });
      const first = fault === "unreachable" ? "localhost:1" : front.serverName;
      const answer = await knock(client, room, [first, other.serverName]);
      end();
      expect(answer.status).toBe(200);
      expect(resident.membership(room, client.userId)).toBe("knock");
    },
  );

  it("is refused by a room without knocking, and to the banned, by the first server that says so", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await resident.ban(room, client.userId, { push: false });
    const before = other.requests.length;
    const banned = await knock(client, room, [front.serverName, other.serverName]);
    expect(banned).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const closed = await knock(await aUser(), hostRoom({ joinRule: "invite" }));
    expect(closed).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(other.requests.slice(before).map((one) => one.endpoint)).not.toContain("make_knock");
    expect((await client.sync()).rooms?.knock).toBeUndefined();
  });

  it("says that no server is known, and refuses a template of another membership", async () => {
    const room = hostRoom({ ...KNOCK, version: "12" });
    const client = await aUser();
    expect(await knock(client, room, [])).toMatchObject({ status: 502, body: { errcode: "M_UNKNOWN" } });
    const changes = { content: { membership: "join" } };
    const end = resident.trouble({ kind: "lie", lie: "template", changes, at: "make_knock" });
    const answer = await knock(client, room);
    end();
    expect(answer.status).toBe(502);
    expect(answer.body.error).toContain("does not knock");
  });

  it("goes to the servers that an alias's directory names", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    const changes = { room_id: room.roomId, servers: [other.serverName] };
    const end = resident.trouble({ kind: "lie", lie: "answer", changes, at: "directory" });
    const answer = await client.call("POST", `knock/${key(`#room:${front.serverName}`)}`);
    end();
    expect(answer).toMatchObject({ status: 200, body: { room_id: room.roomId } });
    expect(resident.membership(room, client.userId)).toBe("knock");
  });

  it("is taken back by a leave, at the server that took it", async () => {
    const room = hostRoom({ ...KNOCK, version: "12" });
    const client = await aUser();
    await knock(client, room);
    const { next_batch: since } = await client.sync();
    await client.ok("POST", `rooms/${key(room.roomId)}/leave`);
    expect(resident.membership(room, client.userId)).toBe("leave");
    const { rooms } = await client.sync({ since });
    expect(rooms.knock).toBeUndefined();
    expect(rooms.leave[room.roomId].timeline.events[0].content.membership).toBe("leave");
    expect((await client.sync()).rooms?.knock).toBeUndefined();
  });

  it("is gone for the user where no server can be told", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await knock(client, room);
    const end = resident.trouble({ kind: "refuse", status: 500, at: "make_leave" });
    await client.ok("POST", `rooms/${key(room.roomId)}/leave`);
    end();
    expect(resident.membership(room, client.userId)).toBe("knock");
    expect((await client.sync()).rooms?.knock).toBeUndefined();
  });

  it("is answered by an invitation, which lets the user in", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await knock(client, room);
    const { next_batch: since } = await client.sync();
    await resident.invite(room, client.userId, { by: front.user });
    const { rooms } = await client.sync({ since });
    expect(rooms.knock).toBeUndefined();
    expect(rooms.invite[room.roomId].invite_state.events).not.toEqual([]);
    await client.ok("POST", `join/${key(room.roomId)}`);
    expect(resident.membership(room, client.userId)).toBe("join");
  });

  it.each(["invite", "join"] as const)("does not undo what came before its server's answer: %s", async (membership) => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    const letGo = resident.trouble({ kind: "hold", at: "send_knock" });
    const knocking = knock(client, room);
    await expect.poll(() => resident.membership(room, client.userId)).toBe("knock");
    await resident.invite(room, client.userId, { by: front.user });
    if (membership === "join") await scene.joinVia(client, room);
    letGo();
    expect((await knocking).status).toBe(200);
    const { rooms } = await client.sync({ filter: JSON.stringify({ room: { state: { lazy_load_members: true } } }) });
    expect(Object.keys(rooms)).toEqual([membership]);
    expect(rooms[membership]).toHaveProperty([room.roomId]);
  });

  it.each(["kick", "ban"] as const)("is answered by a %s, of which the user is told", async (answer) => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await knock(client, room);
    const { next_batch: since } = await client.sync();
    const { results } = await resident[answer](room, client.userId, { to: [sidecar.serverName] });
    expect(results).toMatchObject([{ status: 200 }]);
    const { rooms } = await client.sync({ since });
    const [event] = rooms.leave[room.roomId].timeline.events;
    expect(event).toMatchObject({ sender: resident.founder, state_key: client.userId });
    expect((await client.sync()).rooms?.knock).toBeUndefined();
  });
});

describe("a refusal from outside", () => {
  it("is not believed where nobody signed it", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await knock(client, room);
    const { event } = await resident.kick(room, client.userId, { push: false });
    await resident.sendPdus(room, [{ ...event.pdu, signatures: {} }], { to: [sidecar.serverName] });
    expect((await client.sync()).rooms.knock).toHaveProperty([room.roomId]);
  });

  it("is not believed where it does not name the knock", async () => {
    const room = hostRoom(KNOCK);
    const client = await aUser();
    await knock(client, room);
    const authEvents = ["m.room.create", "m.room.power_levels"].flatMap(
      (type) => resident.fullState(room).get(stateKeyOf(type, "")) ?? [],
    );
    const founder = resident.fullState(room).get(stateKeyOf("m.room.member", resident.founder)) as EventId;
    const sending = { to: [sidecar.serverName], authEvents: [...authEvents, founder] };
    await resident.kick(room, client.userId, sending);
    expect((await client.sync()).rooms.knock).toHaveProperty([room.roomId]);
  });

  it("takes an invitation back, where it is the inviter's", async () => {
    const room = hostRoom();
    const [client, kept] = [await aUser(), await aUser()];
    for (const { userId } of [client, kept]) await resident.invite(room, userId, { by: front.user });
    const to = { to: [sidecar.serverName] };
    await resident.kick(room, kept.userId, to);
    await empower(resident, room, { [front.user]: 50 });
    const leave = { type: "m.room.member", stateKey: client.userId, content: { membership: "leave" } };
    await resident.send(room, { sender: front.user, ...leave }, to);
    expect((await client.sync()).rooms?.invite).toBeUndefined();
    expect((await kept.sync()).rooms.invite).toHaveProperty([room.roomId]);
  });

  it("is told to the user although a join that failed has left it behind", async () => {
    const room = hostRoom();
    const client = await aUser();
    await resident.invite(room, client.userId, { by: front.user });
    await empower(resident, room, { [front.user]: 50 });
    const leave = { type: "m.room.member", stateKey: client.userId, content: { membership: "leave" } };
    const { event, eventId } = await resident.send(room, { sender: front.user, ...leave }, { push: false });
    await insertOutliers(sidecar.ctx.database.pool, [{ event, rejection: null }]);
    await resident.deliver(room, [eventId], { to: [sidecar.serverName] });
    expect((await client.sync()).rooms?.invite).toBeUndefined();
  });
});

describe("a knock on a room that we are in", () => {
  it("is a handshake while the state is partial, and is in the room then", async () => {
    const { room, client: first, complete } = await scene.enter();
    await resident.sendState(room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
    const [client, banned] = [await aUser(), await aUser()];
    await resident.ban(room, banned.userId, { to: [] });
    expect(await knock(banned, room)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect((await knock(client, room)).status).toBe(200);
    await receiveWaitingPdus(sidecar.ctx);
    const path = `rooms/${key(room.roomId)}/state/m.room.member/${key(client.userId)}`;
    expect((await first.ok("GET", path)).membership).toBe("knock");
    expect((await client.sync()).rooms.knock).toHaveProperty([room.roomId]);
    await complete();
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    await client.ok("POST", `rooms/${key(room.roomId)}/leave`);
    await expect.poll(() => resident.membership(room, client.userId)).toBe("leave");
  });

  it("is the same handshake where it is set as state", async () => {
    const { room } = await scene.enter();
    await resident.sendState(room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
    const client = await aUser();
    const path = `rooms/${key(room.roomId)}/state/m.room.member/${key(client.userId)}`;
    const body = { membership: "knock", reason: "please" };
    const { event_id: eventId } = await client.ok("PUT", path, { body });
    expect(resident.fullState(room).get(stateKeyOf("m.room.member", client.userId))).toBe(eventId);
  });

  it("is an event of our own where the state is full", async () => {
    const { room, complete } = await scene.enter();
    await resident.sendState(room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
    await complete();
    const client = await aUser();
    const before = front.requests.length;
    expect((await knock(client, room)).status).toBe(200);
    await expect.poll(() => resident.membership(room, client.userId)).toBe("knock");
    expect(front.requests.slice(before).map((one) => one.endpoint)).not.toContain("make_knock");
  });

  it("is refused by a moderator of ours while the state is partial", async () => {
    const entered = await scene.enter({ power: 50, room: { joinRule: "public" } });
    const { room, client, at } = entered;
    await resident.sendState(room, { type: "m.room.join_rules", content: { join_rule: "knock" } });
    const knocker: UserId = `@member-knocks:${remoteServer(room)}`;
    await resident.send(room, {
      sender: knocker,
      type: "m.room.member",
      stateKey: knocker,
      content: { membership: "knock" },
    });
    await client.ok("POST", at("kick"), { body: { user_id: knocker } });
    await expect.poll(() => resident.membership(room, knocker)).toBe("leave");
  });
});

describe("an invitation that is taken back", () => {
  it.each(["as a kick", "as state"])("is told to its user's server, which has nobody in the room: %s", async (how) => {
    const client = await aUser();
    const roomId = await client.createRoom();
    const guest: UserId = `@guest:${other.serverName}`;
    const at = (rest: string): string => `rooms/${key(roomId)}/${rest}`;
    await client.ok("POST", at("invite"), { body: { user_id: guest } });
    await (how === "as a kick"
      ? client.ok("POST", at("kick"), { body: { user_id: guest } })
      : client.ok("PUT", at(`state/m.room.member/${key(guest)}`), { body: { membership: "leave" } }));
    const sent = () => other.transactions.flatMap(({ pdus }) => pdus.map((pdu) => pdu as unknown as Pdu));
    await expect
      .poll(() => sent().filter((pdu) => pdu.room_id === roomId))
      .toMatchObject([{ state_key: guest, content: { membership: "leave" } }]);
  });
});

function remoteServer(room: HostedRoom): string {
  const [user] = resident.joinedMembers(room).filter((one) => one.startsWith("@member-"));
  return user?.split(":")[1] ?? "";
}
