import { afterEach, describe, expect, it } from "vitest";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { memberId } from "../../resident/generate-room.ts";
import { forge, madeUpId, serveForged } from "../../resident/forge.ts";
import type { HostedEvent, HostedRoom } from "../../resident/hosted-room.ts";
import type { Trouble } from "../../resident/trouble.ts";
import { askForState, expectStateRefused } from "../../support/hostile-scene.ts";
import { completeResync, enterRoom, join, type EnteredRoom } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene({ fronts: 2 });
const { database, resident, sidecar } = scene;
const { pool } = database;
afterEach(() => resident.clearTrouble());

function lie(told: JsonObject): void {
  resident.trouble({ kind: "lie", ...told } as unknown as Trouble);
}

function stateOf(room: HostedRoom, type: string): EventId {
  return resident.fullState(room).get(stateKeyOf(type, "")) ?? "$none";
}

/** In the place of the state's ids, or beside them. */
function tellIds(told: JsonObject): void {
  lie({ lie: "answer", at: "state_ids", changes: told });
}

function tellBeside({ room }: EnteredRoom, ...ids: readonly EventId[]): void {
  tellIds({ pdu_ids: [...resident.fullState(room).values(), ...ids] });
}

let rooms = 0;

async function enterOldRoom(version: "1" | "2"): Promise<EnteredRoom> {
  rooms += 1;
  const room = resident.hostRoom({ members: 20, servers: 3, version, label: `hostile states ${rooms}` });
  const joined = await join(scene, sidecar.ctx, room);
  return { room, roomId: room.roomId, target: { roomId: room.roomId, joinEventId: joined.eventId } };
}

describe("a state that is refused, whose cause the workflow is told:", () => {
  it.each([
    ["signature", /signature of server-/],
    ["form", /depth is not an integer/],
  ] as const)("one with an event of a bad %s", async (how, reason) => {
    const entered = await enterRoom(scene);
    lie({ lie: "spoil", eventId: memberOf(entered.room), how });
    const detail = new RegExp(`did not give 1 of its events, and some that are not genuine: .*${reason.source}`);
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail });
    await completeResync(scene, entered);
  });

  it.each<[string, JsonObject, string, RegExp]>([
    ["of no ids at all", { pdu_ids: [], auth_chain_ids: [] }, "invalid-data", /is empty/],
    ["of what are no ids", { pdu_ids: [1, "x", null] }, "invalid-data", /something else than event ids/],
    ["of no list", { pdu_ids: "all" }, "invalid-data", /"pdu_ids" is not a list/],
  ])("one %s", async (_what, told, cause, detail) => {
    const entered = await enterRoom(scene);
    tellIds(told);
    await expectStateRefused(scene, entered, { cause, detail });
  });

  it("one of ids that nobody has", async () => {
    const entered = await enterRoom(scene);
    tellBeside(entered, madeUpId("nobody"), madeUpId("has"));
    const detail = /did not give 2 of its events: \$/;
    await expectStateRefused(scene, entered, { cause: "unknown-event", detail });
    await completeResync(scene, entered);
  });

  it("one of another room's ids", async () => {
    const other = await enterRoom(scene);
    const entered = await enterRoom(scene);
    tellBeside(entered, stateOf(other.room, "m.room.topic"));
    const detail = /1 of its \d+ events are not stored, or of another room/;
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail });
    await completeResync(scene, entered);
  });

  it("one of another room's ids that are not known here", async () => {
    const entered = await enterRoom(scene);
    const other = resident.hostRoom({ members: 10, servers: 3, label: "a room unknown here" });
    const topic = other.events.get(stateOf(other, "m.room.topic"));
    if (topic === undefined) throw new Error("the room has no topic");
    serveForged(entered.room, topic);
    tellBeside(entered, topic.event.eventId);
    const detail = /did not give 1 of its events, and some that are not genuine: .*it belongs to room !/;
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail });
    entered.room.events.delete(topic.event.eventId);
    await completeResync(scene, entered);
  });

  it("one with two events for one key", async () => {
    const entered = await enterRoom(scene);
    const topic = { type: "m.room.topic", content: { topic: "another" } };
    const { eventId } = await resident.sendState(entered.room, topic, { push: false });
    const first = [...entered.room.events.keys()].filter((id) => topicIds(entered.room).includes(id));
    tellBeside(entered, ...first.filter((id) => id !== eventId));
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail: /two events claim m\.room\.topic ""/ });
  });

  it("one without a create event", async () => {
    const entered = await enterRoom(scene);
    lie({ lie: "no-create", at: ["state", "state_ids"] });
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail: /it has no create event/ });
  });

  it("one whose chain has a hole", async () => {
    const entered = await enterRoom(scene);
    const hidden = forged(entered.room, { prev_events: [] }, "hidden");
    const onHole = forged(
      entered.room,
      { auth_events: [...authIds(entered.room), hidden.event.eventId] },
      "on the hole",
    );
    serveForged(entered.room, onHole);
    tellBeside(entered, onHole.event.eventId);
    const detail = new RegExp(`did not give 1 of its events: .*has a hole: nobody gave \\${hidden.event.eventId}`);
    await expectStateRefused(scene, entered, { cause: "unknown-event", detail });
  });

  it.each(["1", "2"] as const)("one of a ring of chosen ids in room version %s", async (version) => {
    const entered = await enterOldRoom(version);
    const server = resident.founder.slice(resident.founder.indexOf(":"));
    const [one, other] = [`$ring-one-${version}${server}`, `$ring-other-${version}${server}`] as const;
    for (const [id, on] of [
      [one, other],
      [other, one],
    ] as const) {
      serveForged(entered.room, forged(entered.room, { event_id: id, auth_events: [[on, { sha256: "x" }]] }, id));
    }
    tellBeside(entered, one, other);
    const detail = /did not give 2 of its events, and some that are not genuine: \$ring-.*authorizes itself/;
    await expectStateRefused(scene, entered, { cause: "invalid-data", detail });
    await completeResync(scene, entered);
  });

  it("one that breaks off half-way, of which what had come is kept", async () => {
    const entered = await enterRoom(scene);
    resident.trouble({ kind: "half-body", at: "state" });
    const before = await outliersOf(entered);
    const { outcome } = await askForState(scene, entered);
    expect(outcome).toMatchObject({ kind: "failed", detail: expect.stringMatching(/./) });
    expect(await outliersOf(entered)).toBeGreaterThan(before + 5);
    resident.clearTrouble();
    await completeResync(scene, entered);
  });

  it("one of a resident that stops serving half-way", async () => {
    const entered = await enterRoom(scene);
    resident.trouble({ kind: "refuse", status: 502, at: "state" });
    resident.trouble({ kind: "reset", at: "event" });
    const { outcome, log } = await askForState(scene, entered);
    expect(outcome).toMatchObject({
      kind: "failed",
      cause: "unreachable",
      detail: expect.stringContaining("connection"),
    });
    expect(log.join("")).toContain("a server could not help the resync");
    resident.clearTrouble();
    await completeResync(scene, entered);
  });
});

describe("a state whose ids a server told that gave nothing of it", () => {
  it.each([
    ["which nobody has", () => madeUpId("nobody has")],
    ["of another room", (other: EnteredRoom) => stateOf(other.room, "m.room.topic")],
  ])("among them one %s, is asked of the next server anew, which is not blamed for it", async (_what, more) => {
    const other = await enterRoom(scene);
    const entered = await enterRoom(scene);
    tellBeside(entered, more(other));
    resident.trouble({ kind: "refuse", status: 403, at: ["state", "event"] });
    const lying = await askForState(scene, entered);
    expect(lying.outcome).toMatchObject({ kind: "failed", cause: "forbidden" });
    const [, honest] = resident.fronts;
    const { outcome, log } = await askForState(scene, entered, honest?.serverName);
    expect(outcome).toMatchObject({ kind: "complete" });
    expect(log.join("")).toContain(`"toldBy":"${resident.serverName}"`);
    await completeResync(scene, entered);
  });

  it("is blamed on the next server where its own ids are no better", async () => {
    const entered = await enterRoom(scene);
    tellBeside(entered, madeUpId("nobody has either"));
    resident.trouble({ kind: "refuse", status: 403, at: ["state", "event"] });
    await askForState(scene, entered);
    const [, next] = resident.fronts;
    if (next === undefined) throw new Error("two servers are needed");
    const pduIds = [...resident.fullState(entered.room).values(), madeUpId("one"), madeUpId("another")];
    resident.trouble({ kind: "lie", lie: "answer", at: "state_ids", changes: { pdu_ids: pduIds } }, next);
    const { outcome } = await askForState(scene, entered, next.serverName);
    resident.clearTrouble(next);
    expect(outcome).toMatchObject({ cause: "unknown-event", detail: expect.stringMatching(/did not give 2 of its/) });
  });
});

describe("a state that is taken:", () => {
  it("one of other contents than were hashed, without these contents", async () => {
    const entered = await enterRoom(scene);
    const member = memberOf(entered.room);
    lie({ lie: "bad-content", type: "m.room.member" });
    const { outcome, log } = await askForState(scene, entered);
    expect(outcome.kind).toBe("complete");
    expect((await loadEvent(pool, member))?.pdu.content).toEqual({ membership: "join" });
    expect(log.join("")).toContain("the content is not what was hashed");
  });

  it("one that names an event which the auth rules refuse, without it", async () => {
    const entered = await enterRoom(scene);
    const powerless = resident.joinedMembers(entered.room).find((user) => user.startsWith("@member")) ?? "@none:x";
    const refused = forge(resident, entered.room, {
      sender: powerless,
      type: "m.room.power_levels",
      stateKey: "",
      content: { users: { [powerless]: 100 } },
      evenIfRejected: true,
      changes: {},
    });
    serveForged(entered.room, refused);
    const [type, eventId] = ["m.room.power_levels", refused.event.eventId];
    lie({ lie: "replace-state", type, stateKey: "", eventId, at: ["state", "state_ids"] });
    const { outcome, log } = await askForState(scene, entered);
    expect(outcome.kind).toBe("complete");
    expect(log.join("")).toMatch(/names events that the auth rules refuse/);
    expect(log.join("")).toContain(eventId);
    expect(await loadEvent(pool, eventId)).toMatchObject({ rejected: true });
  });
});

function memberOf({ events }: HostedRoom): EventId {
  const member = memberId(9, { servers: 5 });
  for (const { event } of events.values()) if (event.pdu.state_key === member) return event.eventId;
  throw new Error(`${member} is not in the room`);
}

function topicIds(room: HostedRoom): readonly EventId[] {
  return [...room.events.values()]
    .filter(({ event }) => event.pdu.type === "m.room.topic")
    .map(({ event }) => event.eventId);
}

function authIds(room: HostedRoom): readonly EventId[] {
  return [stateOf(room, "m.room.create"), stateOf(room, "m.room.power_levels")];
}

function forged(room: HostedRoom, changes: JsonObject, name: string): HostedEvent {
  return forge(resident, room, {
    sender: resident.founder,
    type: "org.example.forged",
    stateKey: name,
    content: {},
    changes: changes as never,
  });
}

async function outliersOf({ roomId }: EnteredRoom): Promise<number> {
  const { rows } = await pool.query<{ count: number }>(
    "SELECT count(*)::integer AS count FROM events WHERE room_id = $1 AND outlier",
    [roomId],
  );
  return rows[0]?.count ?? 0;
}
