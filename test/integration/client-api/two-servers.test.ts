import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { EventId, RoomId } from "../../../src/matrix/identifiers.ts";
import { forwardExtremities, setForwardExtremities } from "../../../src/storage/rooms.ts";
import { openTestDatabase } from "../../support/database.ts";
import { startInProcessSidecar } from "../../support/in-process-sidecar.ts";
import type { InProcessSidecar } from "../../support/in-process-sidecar.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, LoopbackClientApi, TestClient } from "../../support/loopback-client.ts";

const key = encodeURIComponent;
const at = (roomId: string, rest: string): string => `rooms/${key(roomId)}/${rest}`;
const LAZY = JSON.stringify({ room: { state: { lazy_load_members: true } } });

interface Server {
  readonly sidecar: InProcessSidecar;
  readonly api: LoopbackClientApi;
}

const databases = [await openTestDatabase(), await openTestDatabase(), await openTestDatabase()] as const;
async function start(database: (typeof databases)[number]): Promise<Server> {
  const sidecar = await startInProcessSidecar(database);
  return { sidecar, api: await startLoopbackClientApi(database, sidecar.ctx) };
}

let one: Server;
let two: Server;
let alice: TestClient;
let bob: TestClient;

beforeAll(async () => {
  [one, two] = [await start(databases[0]), await start(databases[1])];
  [alice, bob] = [await one.api.register("alice"), await two.api.register("bob")];
});
afterAll(async () => {
  await one.sidecar.close();
  await two.sidecar.close();
});

/** Syncs until the answer is as wanted. */
async function until(client: TestClient, wanted: (rooms: Body) => boolean): Promise<Body> {
  let since: string | undefined;
  for (;;) {
    const query = { filter: LAZY, timeout: "5000", ...(since === undefined ? {} : { since }) };
    const answer: Body = await client.sync(query);
    if (wanted(answer.rooms ?? {})) return answer.rooms;
    since = answer.next_batch;
  }
}

describe("an invitation over federation", () => {
  it("builds on the latest of the room's ends, as many as an event may name", async () => {
    const roomId = (await alice.createRoom("11")) as RoomId;
    const ends: EventId[] = [];
    for (let count = 0; count < 25; count += 1) ends.push((await alice.send(roomId, `end ${count}`)) as EventId);
    await setForwardExtremities(databases[0].pool, roomId, ends);
    await alice.ok("POST", at(roomId, "invite"), { body: { user_id: bob.userId } });
    await until(bob, (rooms) => rooms.invite?.[roomId] !== undefined);
    const left = await forwardExtremities(databases[0].pool, roomId);
    expect(left.filter((id) => ends.includes(id))).toEqual(ends.slice(0, 5).toSorted());
    expect(left).toHaveLength(6);
  });

  it.each(["1", "6", "11", "12"] as const)("is signed, shown and accepted (room version %s)", async (version) => {
    const roomId = await alice.createRoom(version, { name: "Tea", invite: [bob.userId], is_direct: true });
    const { invite } = await until(bob, (rooms) => rooms.invite?.[roomId] !== undefined);
    const state: Body[] = invite[roomId].invite_state.events;
    expect(state.find((event) => event.type === "m.room.name")).toEqual({
      type: "m.room.name",
      state_key: "",
      sender: alice.userId,
      content: { name: "Tea" },
    });
    expect(state.find((event) => event.state_key === bob.userId)).toMatchObject({
      sender: alice.userId,
      content: { membership: "invite", is_direct: true },
    });
    await bob.ok("POST", `join/${key(roomId)}`);
    await until(alice, (rooms) =>
      rooms.join?.[roomId]?.timeline.events.some(
        (event: Body) => event.state_key === bob.userId && event.content.membership === "join",
      ),
    );
    await alice.send(roomId, "welcome");
    await until(bob, (rooms) =>
      rooms.join?.[roomId]?.timeline.events.some((event: Body) => event.content.body === "welcome"),
    );
  });

  it("is declined", async () => {
    const roomId = await alice.createRoom("11", { invite: [bob.userId] });
    await until(bob, (rooms) => rooms.invite?.[roomId] !== undefined);
    await bob.ok("POST", at(roomId, "leave"));
    await until(alice, (rooms) =>
      rooms.join?.[roomId]?.timeline.events.some(
        (event: Body) => event.state_key === bob.userId && event.content.membership === "leave",
      ),
    );
    expect((await bob.sync()).rooms?.invite?.[roomId]).toBeUndefined();
  });

  it("is gone for the user where the inviting server can't be told", async () => {
    const three = await start(databases[2]);
    const carol = await three.api.register("carol");
    const roomId = await carol.createRoom("11", { invite: [bob.userId] });
    await until(bob, (rooms) => rooms.invite?.[roomId] !== undefined);
    const { next_batch: since } = await bob.sync({ filter: LAZY });
    await three.sidecar.close();
    await bob.ok("POST", at(roomId, "leave"));
    const { rooms } = await bob.sync({ since, filter: LAZY });
    expect(rooms.leave[roomId].timeline.events).toEqual([]);
    expect((await bob.sync({ filter: LAZY })).rooms?.invite?.[roomId]).toBeUndefined();
  });

  it("is refused before it is sent where the room does not allow it", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    await alice.ok("POST", at(roomId, "ban"), { body: { user_id: bob.userId } });
    const answer = await alice.call("POST", at(roomId, "invite"), { body: { user_id: bob.userId } });
    expect(answer).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
  });

  it("says which server did not take it", async () => {
    const roomId = await alice.createRoom();
    const body = { user_id: "@nobody:localhost:1" };
    const answer = await alice.call("POST", at(roomId, "invite"), { body });
    expect(answer.status).toBe(502);
    expect(answer.body.error).toContain("localhost:1");
    const { chunk } = await alice.ok("GET", at(roomId, "members"));
    expect(chunk).toHaveLength(1);
  });
});

describe("a redaction of another server's event", () => {
  it("needs the power to redact", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat" });
    await bob.ok("POST", `join/${key(roomId)}`, { query: { via: one.sidecar.serverName } });
    const [mine, his] = [await alice.send(roomId, "mine"), await bob.send(roomId, "his")];
    const arrival = (eventId: string) => (rooms: Body) =>
      rooms.join?.[roomId]?.timeline.events.some((event: Body) => event.event_id === eventId);
    await until(bob, arrival(mine));
    await until(alice, arrival(his));
    await alice.ok("PUT", at(roomId, `redact/${key(his)}/1`), { body: {} });
    const { event_id: powerless } = await bob.ok("PUT", at(roomId, `redact/${key(mine)}/2`), { body: {} });
    await until(alice, arrival(powerless));
    const bodyOf = async (eventId: string): Promise<Body> =>
      (await alice.ok("GET", at(roomId, `event/${key(eventId)}`))).content.body;
    expect(await bodyOf(his)).toBeUndefined();
    expect(await bodyOf(mine)).toBe("mine");
  });
});

describe("what another server knows", () => {
  it("is asked for: aliases and profiles", async () => {
    const roomId = await alice.createRoom("11", { preset: "public_chat", room_alias_name: "lounge" });
    const alias = `#lounge:${one.sidecar.serverName}`;
    const resolved = await bob.ok("GET", `directory/room/${key(alias)}`);
    expect(resolved).toEqual({ room_id: roomId, servers: [one.sidecar.serverName] });
    const missing = await bob.call("GET", `directory/room/${key(`#attic:${one.sidecar.serverName}`)}`);
    expect(missing).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    const place = `profile/${key(alice.userId)}`;
    await alice.ok("PUT", `${place}/displayname`, { body: { displayname: "Alice" } });
    expect(await bob.ok("GET", place)).toEqual({ displayname: "Alice" });
    const nobody = await bob.call("GET", `profile/${key(`@nobody:${one.sidecar.serverName}`)}`);
    expect(nobody).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    expect(await bob.ok("POST", `join/${key(alias)}`)).toEqual({ room_id: roomId });
  });
});
