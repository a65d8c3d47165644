import { randomBytes } from "node:crypto";
import type { QueryConfig } from "pg";
import { afterEach, describe, expect, it, onTestFinished } from "vitest";
import type { Event } from "../../../src/matrix/event.ts";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { authorizeOutliers } from "../../../src/rooms/events/authorize-outliers.ts";
import { fetchForeignState } from "../../../src/rooms/fetch/fetch-foreign-state.ts";
import { createWaitingOutliers } from "../../../src/rooms/fetch/waiting-outliers.ts";
import { transaction, type Connection } from "../../../src/storage/database.ts";
import { insertOutliers, loadEvent } from "../../../src/storage/events.ts";
import { saveResyncStateIds } from "../../../src/storage/resync-state-ids.ts";
import { insertRoom } from "../../../src/storage/rooms.ts";
import { aPdu, rulesFor } from "../../support/a-pdu.ts";
import { aRoom, member, openRoom } from "../../support/builders.ts";
import { completeResync, join } from "../../support/race-scene.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import type { Endpoint } from "../../resident/trouble.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene();
const { resident, sidecar } = scene;
afterEach(() => resident.clearTrouble());

/** More than one answer may hold where there is no room, and several times what is checked at once. */
const MEMBERS = 1_600;

interface RoomOfNewRules {
  readonly room: HostedRoom;
  /** By these all of its members joined. They have been replaced: the auth chain alone has them. */
  readonly oldRules: EventId;
}

async function hostRoom(label: string): Promise<RoomOfNewRules> {
  const room = resident.hostRoom({ members: MEMBERS, servers: 5, label });
  const oldRules = resident.fullState(room).get(stateKeyOf("m.room.join_rules", "")) ?? "$none";
  const content = { join_rule: "public", "org.example.replaced": true };
  await resident.sendState(room, { type: "m.room.join_rules", content }, { push: false });
  await resident.sendMessage(room, resident.founder, "The state before this one is asked for", { push: false });
  return { room, oldRules };
}

function asked(endpoint: Endpoint, { roomId }: HostedRoom): number {
  const ofRoom = resident.front.requests.filter(({ uri }) => uri.includes(encodeURIComponent(roomId)));
  return ofRoom.filter((request) => request.endpoint === endpoint).length;
}

/** The event whose state is asked for is not part of it. */
const ITSELF = 1;

const askedForEvents = (): number => resident.front.requests.filter(({ endpoint }) => endpoint === "event").length;

/** Joins the room without a word of its old rules, and repairs it. */
async function joinAndResync({ room, oldRules }: RoomOfNewRules): Promise<void> {
  resident.trouble({ kind: "lie", lie: "missing-auth", eventId: oldRules, at: "send_join" });
  const { eventId } = await join(scene, sidecar.ctx, room);
  const target = { roomId: room.roomId, joinEventId: eventId };
  await completeResync(scene, { room, roomId: room.roomId, target });
}

/** Another answer's events wait, and take all the room that there is. */
function leaveNoRoom({ rules }: HostedRoom): () => void {
  const roomId = "!hostile:example.org";
  const hostile = createWaitingOutliers(roomId);
  let count = 0;
  const hold = (body: string): boolean => {
    count += 1;
    const event = {
      eventId: `$large${count}`,
      roomId,
      pdu: aPdu(rules, { content: { body } }),
      rejected: false,
    } as const;
    return hostile.hold(event, [`$missing${count}`]);
  };
  // First large ones, then small ones into what is left.
  for (const size of [1024 * 1024, 8 * 1024]) {
    // Of what can be compressed there is room for many times as much.
    const body = randomBytes((size / 4) * 3).toString("base64");
    while (hold(body));
  }
  return () => hostile.end();
}

describe("a state whose auth chain comes last, while its members need it,", { timeout: 240_000 }, () => {
  it("is whole after one /state, without an /event for any of it", async () => {
    const hosted = await hostRoom("auth chain last");
    const before = askedForEvents();
    await joinAndResync(hosted);
    expect([asked("state", hosted.room), askedForEvents() - before]).toEqual([1, ITSELF]);
  });

  it("is asked for once more where there was no room to wait, and not event by event", async () => {
    const hosted = await hostRoom("auth chain last, no room");
    const before = askedForEvents();
    onTestFinished(leaveNoRoom(hosted.room));
    await joinAndResync(hosted);
    expect([asked("state", hosted.room), askedForEvents() - before]).toEqual([2, ITSELF]);
  });

  it("is not read again and again of a server whose answers have been large enough", async () => {
    const hosted = await hostRoom("auth chain last, too large");
    const { room, oldRules } = hosted;
    onTestFinished(leaveNoRoom(room));
    resident.trouble({ kind: "lie", lie: "missing-auth", eventId: oldRules, at: "send_join" });
    const { eventId: joinEventId } = await join(scene, sidecar.ctx, room);
    const eventId = (await loadEvent(scene.database.pool, joinEventId))?.pdu.prev_events[0];
    const { roomId, rules } = room;
    const server = resident.serverName;
    // An answer has some 700 bytes a member.
    const request = { roomId, rules, eventId: eventId as EventId, server, maxBytes: MEMBERS * 1_500 };
    await expect(fetchForeignState(sidecar.ctx, request)).rejects.toMatchObject({
      kind: "bad-response",
      reason: expect.stringMatching(/larger than 2400000 bytes together/),
    });
    expect(asked("state", room)).toBe(2);
  });

  it("is read in full of a server that another one's false ids were completed from in vain", async () => {
    const { room, oldRules } = await hostRoom("auth chain last, false ids");
    resident.trouble({ kind: "lie", lie: "missing-auth", eventId: oldRules, at: "send_join" });
    const { eventId: joinEventId } = await join(scene, sidecar.ctx, room);
    const eventId = (await loadEvent(scene.database.pool, joinEventId))?.pdu.prev_events[0] as EventId;
    const { roomId, rules } = room;
    const stateEventIds = ["a", "b", "c"].map((name): EventId => `$${name.repeat(43)}`);
    const told = { roomId, eventId, serverName: "liar.example", stateEventIds, authEventIds: [] };
    await transaction(scene.database, (tx) => saveResyncStateIds(tx, told));
    // Enough for one answer, and not for two.
    const request = { roomId, rules, eventId, server: resident.serverName, maxBytes: MEMBERS * 1_000 };
    expect(await fetchForeignState(sidecar.ctx, request)).toEqual({ kind: "complete" });
    expect(asked("state", room)).toBe(2);
  });

  it("makes a full join whole at once", async () => {
    const { room } = await hostRoom("auth chain last, full");
    resident.trouble({ kind: "full-join" });
    const joined = await join(scene, sidecar.ctx, room);
    expect(joined.partial).toBe(false);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});

describe("authorizeOutliers", () => {
  /** Users whose membership has 40,000 bytes each, and what each of them says. */
  function roomOfLargeMembers(count: number): { readonly before: readonly Event[]; readonly said: readonly Event[] } {
    const users = Array.from({ length: count }, (_none, index): UserId => `@large${index}:example.org`);
    const built = aRoom("11");
    const joins = users.map((user) => member(user, "join", user, { displayname: "x".repeat(40_000) }));
    const after = built.send(openRoom(built), ...joins);
    const before = [...built.events.values()];
    const said = users.map((sender) => built.add(after, { type: "m.room.message", sender, content: { body: "Here" } }));
    return { before, said };
  }

  it("judges events by auth events of any size, a few MiB of which it reads at a time", async () => {
    const { pool } = scene.database;
    const { before, said } = roomOfLargeMembers(200);
    const [create] = before;
    await insertRoom(pool, { roomId: create?.roomId ?? "!none", roomVersion: "11" });
    await insertOutliers(
      pool,
      before.slice(0, -1).map((event) => ({ event, rejection: null })),
    );
    const textOf = (rows: readonly object[]): string => rows.map((row) => Object.values(row).join("")).join("");
    let largest = 0;
    const query = async (statement: QueryConfig): Promise<unknown> => {
      const result = await pool.query<object>(statement);
      largest = Math.max(largest, textOf(result.rows).length);
      return result;
    };

    const judged = await authorizeOutliers({ query } as unknown as Connection, rulesFor("11"), said);

    expect(judged.authorized.map(({ rejection }) => rejection)).toEqual(Array.from({ length: 199 }, () => null));
    const last = before.at(-1)?.eventId;
    expect(judged.undecided).toEqual([{ event: said.at(-1), absent: [last] }]);
    expect(largest).toBeLessThan(3 * 1024 * 1024);
  });
});
