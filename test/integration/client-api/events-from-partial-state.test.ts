import { describe, expect, it } from "vitest";
import { authEventIds } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { partialEventIds, partialRoom } from "../../../src/storage/partial-state.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { startLoopbackClientApi, type ClientAnswer, type TestClient } from "../../support/loopback-client.ts";
import { empower, openClientScene, remoteUsers, type EnteredRoom } from "../../support/client-scene.ts";

const progress = { phase: "fetching", partialEvents: 3, idsLeft: 40, servers: [] };
const scene = await openClientScene({
  fronts: 2,
  client: { fullStateWaitMs: 300, resyncProgress: async () => progress },
});
const { resident, sidecar, database, enter } = scene;
const patient = await startLoopbackClientApi(database, { ...sidecar.ctx, fullStateWaitMs: 20_000 });
const key = encodeURIComponent;
const MODERATOR = { power: 50 };

/** The same client at a server that waits for longer. */
function patientFor({ accessToken }: TestClient): TestClient["call"] {
  return async (method, path, options = {}) =>
    patient.call(method, path, { ...options, query: { ...options.query, access_token: accessToken } });
}

/** The resident has the event, and it moves the room on: neither rejected nor soft-failed. */
async function takenIn(room: HostedRoom, eventId: EventId): Promise<void> {
  const event = await resident.waitForEvent((one) => one.eventId === eventId);
  expect(event.rejected).toBe(false);
  await expect.poll(() => room.extremities.has(eventId)).toBe(true);
}

/** The event by which the resident knows a user, once it is one of ours. */
async function takenMembership(room: HostedRoom, userId: UserId, membership: string): Promise<EventId> {
  await expect.poll(() => resident.membership(room, userId)).toBe(membership);
  const eventId = resident.fullState(room).get(stateKeyOf("m.room.member", userId));
  if (eventId === undefined) throw new Error(`${userId} has no member event`);
  return eventId;
}

/** What was made on partial state was partial, holds after the resync, and both servers agree. */
async function endsAsTheResident({ room, complete }: EnteredRoom, eventId: EventId): Promise<void> {
  expect(await partialEventIds(database.pool, [eventId])).toEqual(new Set([eventId]));
  await complete();
  expect(await partialEventIds(database.pool, [eventId])).toEqual(new Set());
  expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
}

function handshakes(room: HostedRoom): number {
  return resident.front.requests.filter((one) => one.endpoint === "make_join" && one.uri.includes(key(room.roomId)))
    .length;
}

const authEventsOf = (room: HostedRoom, eventId: EventId): readonly EventId[] => {
  const event = room.events.get(eventId)?.event;
  return event === undefined ? [] : authEventIds(event.pdu);
};

describe("an event made from partial state is taken in by the resident", () => {
  it("a message", async () => {
    const entered = await enter();
    const eventId = await entered.client.send(entered.room.roomId, "hello");
    await takenIn(entered.room, eventId);
    await endsAsTheResident(entered, eventId);
  });

  it("a piece of state", async () => {
    const entered = await enter(MODERATOR);
    const body = { topic: "new here" };
    const { event_id: eventId } = await entered.client.ok("PUT", entered.at("state/m.room.topic"), { body });
    await takenIn(entered.room, eventId);
    expect(resident.fullState(entered.room).get(stateKeyOf("m.room.topic", ""))).toBe(eventId);
    await endsAsTheResident(entered, eventId);
  });

  it("a redaction, of an own message and of another server's", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at } = entered;
    const own = await client.send(room.roomId, "oops");
    await takenIn(room, own);
    const { eventId: theirs } = await resident.sendMessage(room, resident.founder, "rude");
    for (const [index, redacted] of [own, theirs].entries()) {
      const { event_id: eventId } = await client.ok("PUT", at(`redact/${key(redacted)}/r${index}`), { body: {} });
      await takenIn(room, eventId);
      expect((await client.ok("GET", at(`event/${key(redacted)}`))).content).toEqual({});
    }
  });

  it("an invitation of another user of ours", async () => {
    const entered = await enter();
    const { room, client, at } = entered;
    const invited = await scene.aUser();
    await client.ok("POST", at("invite"), { body: { user_id: invited.userId } });
    const eventId = await takenMembership(room, invited.userId, "invite");
    const { rooms } = await invited.sync();
    expect(rooms.invite[room.roomId].invite_state.events).toContainEqual(
      expect.objectContaining({ type: "m.room.create" }),
    );
    await endsAsTheResident(entered, eventId);
  });

  it("an invitation of another server's user, which that server has signed", async () => {
    const entered = await enter();
    const { room, client, at } = entered;
    const other = resident.fronts[1]?.serverName ?? "";
    const invited: UserId = `@newcomer:${other}`;
    await client.ok("POST", at("invite"), { body: { user_id: invited, reason: "come in" } });
    const eventId = await takenMembership(room, invited, "invite");
    expect(room.events.get(eventId)?.event.pdu.signatures).toHaveProperty([other]);
    await endsAsTheResident(entered, eventId);
  });

  it("an own display name and avatar, in every room, without a handshake", async () => {
    const entered = await enter();
    const { room, client } = entered;
    const whole = await client.createRoom();
    const before = handshakes(room);
    await client.ok("PUT", `profile/${key(client.userId)}/displayname`, { body: { displayname: "Alice" } });
    const avatar = { avatar_url: `mxc://${sidecar.serverName}/face` };
    await client.ok("PUT", `profile/${key(client.userId)}/avatar_url`, { body: avatar });
    const content = { membership: "join", displayname: "Alice", ...avatar };
    const memberPath = (roomId: string) => `rooms/${key(roomId)}/state/m.room.member/${key(client.userId)}`;
    expect(await client.ok("GET", memberPath(whole))).toEqual(content);
    const { event_id: eventId } = await client.ok("GET", memberPath(room.roomId), { query: { format: "event" } });
    await takenIn(room, eventId);
    expect(room.events.get(eventId)?.event.pdu.content).toEqual(content);
    expect(handshakes(room)).toBe(before);
    await endsAsTheResident(entered, eventId);
  });
});

describe("a ban of another server's member whose membership we lack", () => {
  it("is taken in by the resident", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at } = entered;
    const [target] = remoteUsers(resident, room, "join").slice(5) as [UserId];
    const former = resident.fullState(room).get(stateKeyOf("m.room.member", target));
    await client.ok("POST", at("ban"), { body: { user_id: target, reason: "spam" } });
    const eventId = await takenMembership(room, target, "ban");
    expect(authEventsOf(room, eventId)).not.toContain(former);
    await endsAsTheResident(entered, eventId);
  });

  it("names the membership where the member has spoken since we joined", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at } = entered;
    const [target] = remoteUsers(resident, room, "join").slice(5) as [UserId];
    const former = resident.fullState(room).get(stateKeyOf("m.room.member", target));
    await resident.sendMessage(room, target, "buy this");
    await client.ok("POST", at("ban"), { body: { user_id: target } });
    const eventId = await takenMembership(room, target, "ban");
    expect(authEventsOf(room, eventId)).toContain(former);
    await endsAsTheResident(entered, eventId);
  });
});

describe.each([
  ["as a kick", (target: UserId) => ({ method: "POST", path: "kick", body: { user_id: target } })],
  [
    "as state",
    (target: UserId) => ({
      method: "PUT",
      path: `state/m.room.member/${key(target)}`,
      body: { membership: "leave" },
    }),
  ],
] as const)("a kick of another server's member whose membership we lack, %s", (_how, asked) => {
  const kick = async ({ at }: EnteredRoom, target: UserId, call: TestClient["call"]): Promise<ClientAnswer> => {
    const { method, path, body } = asked(target);
    return await call(method, at(path), { body });
  };

  it("waits for the full state, then says what is missing and when to retry", async () => {
    const entered = await enter(MODERATOR);
    const { room, client } = entered;
    const [target] = remoteUsers(resident, room, "join").slice(5) as [UserId];
    // That they speak proves nothing: a banned user's server may have them speak on top of what was before the ban.
    await resident.sendMessage(room, target, "buy this");
    const answer = await kick(entered, target, client.call);
    expect(answer).toMatchObject({ status: 503 });
    expect(answer.body).toMatchObject({ errcode: "FASTJOIN.PARTIAL_STATE", retry_after_ms: 5000, progress });
    expect(resident.membership(room, target)).toBe("join");
  });

  it("is made as soon as the state is full", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, complete } = entered;
    const [target] = remoteUsers(resident, room, "join").slice(5) as [UserId];
    const waiting = kick(entered, target, patientFor(client));
    await complete();
    expect(await waiting).toMatchObject({ status: 200 });
    const eventId = await takenMembership(room, target, "leave");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
    expect(await partialEventIds(database.pool, [eventId])).toEqual(new Set());
  });

  it("is refused at once where the target has as much power", async () => {
    const entered = await enter(MODERATOR);
    const { room, client } = entered;
    const rival = `@member-00001:${remoteUsers(resident, room, "join")[0]?.split(":")[1]}` as const;
    expect(resident.membership(room, rival)).toBe("join");
    await empower(resident, room, { [rival]: 50 });
    const answer = await kick(entered, rival, client.call);
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("is made at once of whom somebody has invited since, as of a user of ours", async () => {
    const entered = await enter(MODERATOR);
    const { room, client } = entered;
    const guest: UserId = `@guest:${resident.fronts[1]?.serverName}`;
    await resident.send(room, {
      sender: resident.founder,
      type: "m.room.member",
      stateKey: guest,
      content: { membership: "invite" },
    });
    const local = await scene.aUser();
    await scene.joinVia(local, room);
    for (const target of [guest, local.userId]) {
      expect(await kick(entered, target, client.call)).toMatchObject({ status: 200 });
      await takenMembership(room, target, "leave");
    }
    expect(await partialRoom(database.pool, room.roomId)).toBeDefined();
    await entered.complete();
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("a kick of somebody who was banned before we joined", () => {
  it("lifts no ban: it is refused once that is known", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at, complete } = entered;
    const [banned] = remoteUsers(resident, room, "ban") as [UserId];
    const waiting = patientFor(client)("POST", at("kick"), { body: { user_id: banned } });
    await complete();
    expect(await waiting).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(resident.membership(room, banned)).toBe("ban");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("lifts none either where their server has them join again as if there were no ban", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at, complete } = entered;
    const [banned] = remoteUsers(resident, room, "ban") as [UserId];
    const state = resident.fullState(room);
    const ban = state.get(stateKeyOf("m.room.member", banned)) ?? "$none";
    const joined = authEventsOf(room, ban).filter((id) => room.events.get(id)?.event.pdu.state_key === banned);
    const others = ["m.room.create", "m.room.power_levels", "m.room.join_rules"].flatMap(
      (type) => state.get(stateKeyOf(type, "")) ?? [],
    );
    const member = { sender: banned, type: "m.room.member", stateKey: banned } as const;
    const draft = { ...member, content: { membership: "join", displayname: "Me again" } };
    const again = await resident.send(room, draft, { authEvents: [...others, ...joined], evenIfRejected: true });
    expect((await sidecar.currentState(room.roomId)).get(stateKeyOf("m.room.member", banned))).toBe(again.eventId);

    const waiting = patientFor(client)("POST", at("kick"), { body: { user_id: banned } });
    await complete();
    expect(await waiting).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(resident.membership(room, banned)).toBe("ban");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("an invitation of somebody whose membership we lack", () => {
  it("is refused where their own events show that they are in the room", async () => {
    const { room, client, at } = await enter();
    const joined: UserId = `@resident:${resident.fronts[1]?.serverName}`;
    await resident.sendMessage(room, joined, "I am here");
    const answer = await client.call("POST", at("invite"), { body: { user_id: joined } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });
});

describe("an unban of somebody whose membership we lack", () => {
  it("waits for the full state, then says what is missing and when to retry", async () => {
    const { room, client, at } = await enter(MODERATOR);
    const [banned] = remoteUsers(resident, room, "ban");
    const answer = await client.call("POST", at("unban"), { body: { user_id: banned } });
    expect(answer.status).toBe(503);
    expect(answer.body).toMatchObject({ errcode: "FASTJOIN.PARTIAL_STATE", retry_after_ms: 5000, progress });
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(resident.membership(room, banned as UserId)).toBe("ban");
  });

  it("goes on as soon as the state is full", async () => {
    const { room, client, at, complete } = await enter(MODERATOR);
    const [banned] = remoteUsers(resident, room, "ban") as [UserId];
    const waiting = patientFor(client)("POST", at("unban"), { body: { user_id: banned } });
    await complete();
    expect((await waiting).status).toBe(200);
    await takenMembership(room, banned, "leave");
  });

  it("is done once the state is full, and refused where there is no ban", async () => {
    const { room, client, at, complete } = await enter(MODERATOR);
    const [banned] = remoteUsers(resident, room, "ban") as [UserId];
    const [member] = remoteUsers(resident, room, "join") as [UserId];
    await complete();
    await client.ok("POST", at("unban"), { body: { user_id: banned } });
    await takenMembership(room, banned, "leave");
    const answer = await client.call("POST", at("unban"), { body: { user_id: member } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(resident.membership(room, member)).toBe("join");
  });

  it("is done at once where we saw the ban", async () => {
    const entered = await enter(MODERATOR);
    const { room, client, at } = entered;
    const [member] = remoteUsers(resident, room, "join").slice(5) as [UserId];
    await client.ok("POST", at("ban"), { body: { user_id: member } });
    await takenMembership(room, member, "ban");
    await client.ok("POST", at("unban"), { body: { user_id: member } });
    await endsAsTheResident(entered, await takenMembership(room, member, "leave"));
  });

  it("is refused to who is not in the room, without a wait", async () => {
    const { room, at } = await enter();
    const stranger = await scene.aUser();
    const [banned] = remoteUsers(resident, room, "ban");
    const answer = await stranger.call("POST", at("unban"), { body: { user_id: banned } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });
});

describe("a membership set as state", () => {
  it("joins by a handshake, so that a ban which we can't see is honored", async () => {
    const room = scene.hostRoom();
    const [client, banned, welcome] = [await scene.aUser(), await scene.aUser(), await scene.aUser()];
    await resident.ban(room, banned.userId, { push: false });
    await scene.joinVia(client, room);
    const path = ({ userId }: { readonly userId: string }) =>
      `rooms/${key(room.roomId)}/state/m.room.member/${key(userId)}`;
    const body = { membership: "join", displayname: "Me" };
    const refused = await banned.call("PUT", path(banned), { body });
    expect(refused).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    const before = handshakes(room);
    const { event_id: eventId } = await welcome.ok("PUT", path(welcome), { body });
    expect(handshakes(room)).toBe(before + 1);
    expect(await takenMembership(room, welcome.userId, "join")).toBe(eventId);
    expect(await partialRoom(database.pool, room.roomId)).toBeDefined();
  });

  it("renames a joined user locally, with nobody's word for it", async () => {
    const entered = await enter();
    const { room, client, at } = entered;
    const before = handshakes(room);
    const body = { membership: "join", displayname: "Renamed", join_authorised_via_users_server: "@a:other.example" };
    const path = at(`state/m.room.member/${key(client.userId)}`);
    const { event_id: eventId } = await client.ok("PUT", path, { body });
    await takenIn(room, eventId);
    expect(handshakes(room)).toBe(before);
    expect(room.events.get(eventId)?.event.pdu.content).toEqual({ membership: "join", displayname: "Renamed" });
    await endsAsTheResident(entered, eventId);
  });

  it("invites another server's user with that server's signature", async () => {
    const { room, client, at } = await enter();
    const other = resident.fronts[1]?.serverName ?? "";
    const invited: UserId = `@set:${other}`;
    const body = { membership: "invite", reason: "as state" };
    const { event_id: eventId } = await client.ok("PUT", at(`state/m.room.member/${key(invited)}`), { body });
    expect(await takenMembership(room, invited, "invite")).toBe(eventId);
    expect(room.events.get(eventId)?.event.pdu.signatures).toHaveProperty([other]);
  });

  it("leaves", async () => {
    const { room, client, at } = await enter();
    const path = at(`state/m.room.member/${key(client.userId)}`);
    const { event_id: eventId } = await client.ok("PUT", path, { body: { membership: "leave" } });
    expect(await takenMembership(room, client.userId, "leave")).toBe(eventId);
  });
});
