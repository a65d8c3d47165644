import { afterEach, describe, expect, it } from "vitest";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { forgetFailedJoins } from "../../../src/rooms/upkeep/forget-failed-joins.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { beginJoin } from "../../../src/storage/joins-under-way.ts";
import { partialRoomServers } from "../../../src/storage/partial-state.ts";
import { forge, serveForged } from "../../resident/forge.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Trouble } from "../../resident/trouble.ts";
import { expectJoinRefused, watched } from "../../support/hostile-scene.ts";
import { hostRoom, join } from "../../support/race-scene.ts";
import { rowsNaming } from "../../support/rows-naming.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { database, resident } = scene;
const { pool } = database;
const quiet = { push: false };
afterEach(() => resident.clearTrouble());

let rooms = 0;

function hostRoomOf(version: RoomVersion): HostedRoom {
  rooms += 1;
  return resident.hostRoom({ members: 20, servers: 3, version, label: `hostile ${rooms}` });
}

function lie(told: JsonObject): Trouble {
  return { kind: "lie", ...told } as unknown as Trouble;
}

describe("an answer to make_join that is refused:", () => {
  it.each<[string, JsonObject, RegExp]>([
    ["of a room version that nobody knows", { lie: "room-version", version: "org.example.99" }, /unknown room version/],
    ["of another room", { lie: "template", changes: { room_id: "!other:room.test" } }, /is of another room/],
    ["of another user", { lie: "template", changes: { state_key: "@else:where.test" } }, /is of another user/],
    ["that does not join", { lie: "template", changes: { content: { membership: "ban" } } }, /does not join/],
    ["of 21 prev_events", { lie: "template", changes: { prev_events: ids(21) } }, /21 entries, more than 20/],
    ["of a depth beyond its limit", { lie: "template", changes: { depth: 2 ** 53 } }, /malformed/],
  ])("a template %s", async (_what, told, cause) => {
    await expectJoinRefused(scene, hostRoomOf("11"), [lie(told)], cause);
  });
});

describe("an answer to send_join that is refused:", () => {
  const whole: JsonObject = { state: [], auth_chain: [] };

  it.each<[string, readonly JsonObject[], RegExp]>([
    ["without a create event", [{ lie: "no-create" }], /has no create event/],
    ["with another create event", [{ lie: "other-create", where: "state" }], /judged by|create event/],
    [
      "with another create event in the chain",
      [{ lie: "other-create", where: "auth_chain" }],
      /more than one create event/,
    ],
    [
      "with members omitted and no servers named",
      [{ lie: "no-servers-in-room" }],
      /omits members without servers_in_room/,
    ],
    [
      "with members omitted and nothing said of it",
      [{ lie: "members-omitted", says: false }],
      /no member of its own server/,
    ],
    ["with nothing in it", [{ lie: "answer", changes: whole, at: "send_join" }], /has no create event/],
    ["that is no list", [{ lie: "answer", changes: { state: {} }, at: "send_join" }], /"state" is not a list/],
    [
      "that says neither true nor false of members",
      [{ lie: "answer", changes: { members_omitted: "yes" }, at: "send_join" }],
      /neither true nor false/,
    ],
  ])("one %s", async (_what, told, cause) => {
    await expectJoinRefused(scene, hostRoom(scene), told.map(lie), cause);
  });

  it("one of another room version than make_join said", async () => {
    // The two have the same hashes and signatures, so that the join itself is none the wiser.
    const told = lie({ lie: "room-version", version: "9" });
    await expectJoinRefused(scene, hostRoomOf("10"), [told], /is of room version "10", make_join said 9/);
  });

  it("one of another room", async () => {
    const other = hostRoomOf("11");
    const pdus = [...other.events.values()].map(({ event }) => event.pdu);
    const told = lie({ lie: "answer", changes: { state: pdus, auth_chain: [] }, at: "send_join" });
    await expectJoinRefused(scene, hostRoomOf("11"), [told], /belongs to room/);
  });

  it("one whose state bans the user", async () => {
    const room = hostRoom(scene);
    const ban = forge(resident, room, {
      sender: resident.founder,
      type: "m.room.member",
      stateKey: scene.sidecar.userId,
      content: { membership: "ban" },
      changes: {},
    });
    serveForged(room, ban);
    const told = lie({
      lie: "replace-state",
      type: "m.room.member",
      stateKey: scene.sidecar.userId,
      eventId: ban.event.eventId,
      at: "send_join",
    });
    await expectJoinRefused(scene, room, [told, { kind: "full-join" }], /the auth rules refuse the join/);
  });

  it("one with two events for one key of the state", async () => {
    const room = hostRoom(scene);
    const topic = resident.fullState(room).get(stateKeyOf("m.room.topic", ""));
    const { eventId } = await resident.sendState(room, { type: "m.room.topic", content: { topic: "2" } }, quiet);
    const told = { lie: "replace-state", type: "m.room.none", stateKey: "", at: "send_join" };
    const both = [topic, eventId].map((id) => lie({ ...told, eventId: id ?? null }));
    await expectJoinRefused(scene, room, both, /two events for one key/);
  });

  it("one that breaks off in the middle", async () => {
    await expectJoinRefused(
      scene,
      hostRoom(scene),
      [{ kind: "half-body", at: "send_join" }],
      /broke|closed|cut|early|lost/,
    );
  });
});

function ids(count: number): readonly string[] {
  return Array.from({ length: count }, (_none, index) => `$${String(index).padEnd(43, "x")}`);
}

describe("an answer to send_join that is refused, and too large to be held in memory,", () => {
  /** Joins a room of 20 MiB, whose answer has a second create event at its end. */
  async function joinLargeRoom(prepare: (room: HostedRoom) => Promise<void> = async () => {}): Promise<HostedRoom> {
    const room = hostRoomOf("11");
    for (let index = 0; index < 320; index += 1) {
      const content = { body: "x".repeat(60_000) };
      const fat = { sender: resident.founder, type: "org.example.fat", stateKey: `${index}`, content, changes: {} };
      const { text } = forge(resident, room, fat);
      resident.trouble({ kind: "lie", lie: "repeat", text, times: 1, list: "state", at: "send_join" });
    }
    resident.trouble(lie({ lie: "other-create", where: "auth_chain" }));
    await prepare(room);
    await expect(join(scene, scene.sidecar.ctx, room)).rejects.toMatchObject({
      message: expect.stringMatching(/more than one create event/),
    });
    return room;
  }

  async function outliersOf({ roomId }: HostedRoom): Promise<number> {
    const { rows } = await pool.query<{ count: number }>(
      "SELECT count(*)::integer AS count FROM events WHERE room_id = $1",
      [roomId],
    );
    return rows[0]?.count ?? 0;
  }

  it("leaves nothing behind, for whose end no client has waited", async () => {
    const room = await joinLargeRoom();
    expect(await outliersOf(room)).toBeGreaterThan(200);
    await forgetFailedJoins(scene.sidecar.ctx);
    expect(await outliersOf(room)).toBe(0);
    expect(await rowsNaming(database, room.roomId)).toEqual({ rooms: 1 });
  });

  it("leaves it to the last of the joins that are under way, or to whoever finds that one abandoned", async () => {
    const other = { userId: "@other:example.org", attempt: "other", since: 1 } as const;
    const room = await joinLargeRoom(({ roomId }) => beginJoin(pool, { ...other, roomId }));
    await forgetFailedJoins(scene.sidecar.ctx);
    expect(await outliersOf(room)).toBeGreaterThan(200);
    await receiveWaitingPdus(scene.sidecar.ctx);
    await forgetFailedJoins(scene.sidecar.ctx);
    expect(await outliersOf(room)).toBe(0);
  });

  it("takes nothing from the room that is entered by the next join", async () => {
    const room = await joinLargeRoom();
    resident.clearTrouble();
    await join(scene, scene.sidecar.ctx, room);
    const stored = await outliersOf(room);
    await forgetFailedJoins(scene.sidecar.ctx);
    expect(await outliersOf(room)).toBe(stored);
    expect(await rowsNaming(database, room.roomId)).not.toHaveProperty("early_outliers");
  });
});

describe("an answer to send_join that is taken:", () => {
  it("one whose events have other contents than were hashed, without these contents", async () => {
    const room = hostRoom(scene);
    const topic = resident.fullState(room).get(stateKeyOf("m.room.topic", "")) ?? "$none";
    resident.trouble(lie({ lie: "bad-content", type: "m.room.topic", at: "send_join" }));
    const { ctx, log } = watched(scene);

    await join(scene, ctx, room);

    expect((await loadEvent(pool, topic))?.pdu.content).toEqual({});
    expect(log.join("")).toMatch(/the content is not what was hashed/);
    expect(log.join("")).toContain(topic);
  });

  it("one that names 10,000 servers, and as many names that are none: these are not kept", async () => {
    const room = hostRoom(scene);
    const servers = Array.from({ length: 10_000 }, (_none, index) => `s${index}.example`);
    const odd = [null, 1, {}, "", "a b", "x".repeat(300), "UPPER_case", "1.2.3.4:99999999", "a\u0000b", "🐙"];
    const names = servers.flatMap((server, index) => [server, odd[index % odd.length] ?? null]);
    resident.trouble(lie({ lie: "answer", changes: { servers_in_room: names }, at: "send_join" }));

    await join(scene, scene.sidecar.ctx, room);

    const kept = await partialRoomServers(pool, room.roomId);
    expect(new Set(kept)).toEqual(new Set([...servers, resident.serverName]));
  });
});
