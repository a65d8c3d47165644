import { afterEach, describe, expect, it } from "vitest";
import type { Pdu } from "../../../src/matrix/event.ts";
import type { EventId } from "../../../src/matrix/identifiers.ts";
import type { JsonValue } from "../../../src/matrix/json.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { lostEventCounts } from "../../../src/rooms/lost-events.ts";
import { fillGap } from "../../../src/rooms/fetch/fill-gap.ts";
import { keepWaiting } from "../../../src/rooms/fetch/keep-waiting.ts";
import { receiveWaitingPdus } from "../../../src/rooms/receive/receive-waiting-pdus.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { timeline } from "../../../src/storage/timeline.ts";
import { countWaitingPdus, waitingPdusOf } from "../../../src/storage/waiting-pdus.ts";
import { forge, forgeChain, madeUpId, serveForged } from "../../resident/forge.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import {
  countRequests,
  enterAs,
  expectAllThere,
  handleWaiting,
  idsOf,
  STANDINGS,
  unsent,
} from "../../support/gap-scene.ts";
import type { EnteredRoom } from "../../support/race-scene.ts";
import { enterRoom } from "../../support/race-scene.ts";
import { openScene } from "../../support/scene.ts";

const scene = await openScene({ fronts: 2 });
const { database, resident, sidecar } = scene;
const { pool } = database;
// Of a server that can be asked, unlike the founder.
const sender = resident.front.user;
afterEach(async () => {
  await pool.query("DELETE FROM waiting_pdus");
  for (const front of resident.fronts) {
    resident.clearTrouble(front);
    await sidecar.ctx.federation.noteServerAlive(front.serverName);
  }
});

async function timelineIds({ roomId }: EnteredRoom): Promise<readonly EventId[]> {
  const events = await timeline(pool, roomId, { direction: "forward", limit: 10_000, hidden: true });
  return events.map((event) => event.eventId);
}

function pduOf(room: HostedRoom, eventId: EventId): Pdu {
  const hosted = room.events.get(eventId);
  if (hosted === undefined) throw new Error(`the resident has no event ${eventId}`);
  return hosted.event.pdu;
}

function broken(pdu: Pdu): JsonValue {
  const signatures = Object.fromEntries(
    Object.entries(pdu.signatures ?? {}).map(([server, keys]) => [
      server,
      Object.fromEntries(Object.keys(keys).map((keyId) => [keyId, "A".repeat(86)])),
    ]),
  );
  return { ...pdu, signatures } as unknown as JsonValue;
}

describe.each(STANDINGS)("a server that lies about a gap in a room whose state is %s", (standing) => {
  async function lieAbout(
    entered: EnteredRoom,
    told: (missing: EventId) => Promise<readonly JsonValue[]> | readonly JsonValue[],
  ): Promise<{ readonly eventId: EventId; readonly missing: EventId }> {
    const { room } = entered;
    const [missing] = idsOf(await unsent(scene, entered, 1)) as [EventId];
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const pdus = await told(missing);
    for (const front of resident.fronts) resident.trouble({ kind: "lie", lie: "gap", pdus }, front);
    const { eventId, results } = await resident.sendMessage(room, sender, "after the gap");
    expect(results).toMatchObject([{ status: 200, body: { pdus: { [eventId]: {} } } }]);
    expect(asks()).toBe(1);
    await handleWaiting(scene, entered);
    for (const front of resident.fronts) resident.clearTrouble(front);
    expect(asks()).toBe(1);
    return { eventId, missing };
  }

  it("has its event accepted on the state behind the gap, where it tells other events", async () => {
    const entered = await enterAs(scene, standing);
    const old = [...entered.room.events.keys()].slice(5, 10);

    const { eventId } = await lieAbout(entered, () => old.map((id) => pduOf(entered.room, id) as unknown as JsonValue));

    expect((await timelineIds(entered)).filter((id) => old.includes(id))).toEqual([]);
    await expectAllThere(scene, entered, [eventId], standing);
  });

  it("brings in nothing of another room", async () => {
    const entered = await enterAs(scene, standing);
    const other = await enterRoom(scene);
    const { event } = await resident.sendMessage(other.room, resident.founder, "elsewhere", { push: false });

    const { eventId } = await lieAbout(entered, () => [event.pdu as unknown as JsonValue]);

    expect(await loadEvent(pool, event.eventId)).toBeUndefined();
    await expectAllThere(scene, entered, [eventId], standing);
  });

  it("brings in nothing that is no event, and nothing under made-up ids", async () => {
    const entered = await enterAs(scene, standing);

    const { eventId } = await lieAbout(entered, (missing) => [
      null,
      "event",
      17,
      [],
      {},
      { event_id: missing, room_id: entered.roomId, type: "m.room.message" },
    ]);

    await expectAllThere(scene, entered, [eventId], standing);
  });

  it("brings in nothing that is badly signed, and not in the place of the true event", async () => {
    const entered = await enterAs(scene, standing);

    const { eventId, missing } = await lieAbout(entered, (id) => [broken(pduOf(entered.room, id))]);

    expect(await timelineIds(entered)).not.toContain(missing);
    // The state behind the gap was asked for at it, so that it is known as what it is.
    expect((await loadEvent(pool, missing))?.pdu.signatures).toEqual(pduOf(entered.room, missing).signatures);
    await expectAllThere(scene, entered, [eventId], standing);
  });

  it("is passed over for the next server, which fills the gap", async () => {
    const entered = await enterAs(scene, standing);
    const gap = await unsent(scene, entered, 3);
    const [near, far] = resident.fronts;
    if (near === undefined || far === undefined) throw new Error("two servers are needed");
    // In a partial room the server that we joined by is asked first.
    const [liar, honest] = standing === "partial" ? [far, near] : [near, far];
    const lying = resident.trouble({ kind: "lie", lie: "gap", pdus: [] }, liar);
    const asks = countRequests(honest, "get_missing_events", entered);
    const origin = liar.serverName;
    const { eventId } = await resident.sendMessage(entered.room, sender, "after the gap", { origin });
    expect(await countWaitingPdus(pool, entered.roomId)).toBe(1);
    // What is asked of one server after the other may be gone by then: nobody tells the state.
    for (const front of resident.fronts) {
      resident.trouble({ kind: "refuse", status: 404, at: "state_ids" }, front);
    }

    await handleWaiting(scene, entered, 3);

    lying();
    for (const front of resident.fronts) resident.clearTrouble(front);
    expect(asks()).toBe(1);
    await expectAllThere(scene, entered, [...idsOf(gap), eventId], standing);
  });

  it("is not followed for ever where it makes up ever new missing events", async () => {
    const entered = await enterAs(scene, standing);
    const { room } = entered;
    resident.trouble({ kind: "lie", lie: "short-gap", most: 2 });
    const chain = forgeChain(resident, room, { sender, length: 40, root: madeUpId("root") });
    for (const one of chain) serveForged(room, one);
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const last = chain.at(-1);
    if (last === undefined) throw new Error("the chain is empty");

    await resident.sendPdus(room, [last.event.pdu as unknown as JsonValue]);
    expect(asks()).toBe(10);
    const kept = await countWaitingPdus(pool, entered.roomId);
    expect(kept).toBe(21);
    const states = countRequests(resident.front, "state_ids", entered);
    for (let turn = 1; turn <= 3; turn += 1) {
      await handleWaiting(scene, entered);
      // What nobody has is asked for at the end of the chain, and in time at its beginning.
      expect(states()).toBeLessThanOrEqual(turn + 1);
    }

    // The other server was asked once, too.
    expect(await countWaitingPdus(pool, entered.roomId)).toBeLessThanOrEqual(2 * kept);
    expect(asks()).toBeLessThanOrEqual(12);
    const { eventId } = await resident.sendMessage(room, sender, "as ever");
    expect(await loadEvent(pool, eventId)).toMatchObject({ outlier: false, rejection: null });
  });
});

describe("fillGap", () => {
  it("reads no more of a server, page by page, than one attempt may have", async () => {
    const { room } = await enterAs(scene, "full");
    resident.trouble({ kind: "lie", lie: "short-gap", most: 2 });
    const chain = forgeChain(resident, room, { sender, length: 12, root: madeUpId("large root") });
    for (const one of chain) serveForged(room, one);
    const [event, parent] = [chain.at(-1)?.event, chain.at(-2)?.event];
    if (event === undefined || parent === undefined) throw new Error("the chain is empty");
    const gap = { origin: resident.serverName, rules: room.rules, event, missing: [parent.eventId] };
    // A page of two events has more than one KiB, and less than two.
    await expect(fillGap(sidecar.ctx, { ...gap, maxBytes: 1_024 })).rejects.toMatchObject({
      kind: "bad-response",
      reason: expect.stringMatching(/larger than 1024 bytes together/),
    });
    const asks = countRequests(resident.front, "get_missing_events", room);
    expect(await fillGap(sidecar.ctx, { ...gap, maxBytes: 4_096 })).toBe(0);
    expect(asks()).toBeLessThanOrEqual(4);
    expect(await loadEvent(pool, parent.eventId)).toBeUndefined();
  });
});

/** Where the sender chooses an event's id, its past may hold whatever it likes. */
describe("an event of room version 1", () => {
  const version = "1";
  let members = 30;

  async function enterOld(): Promise<EnteredRoom> {
    members += 1;
    const room = resident.hostRoom({ version, members });
    const { userId, ctx } = sidecar;
    const { roomId } = room;
    const joined = await joinRoom(ctx, { userId, roomId, via: [resident.serverName] });
    return { room, roomId, target: { roomId, joinEventId: joined.eventId } };
  }

  function forgeMessage(room: HostedRoom, eventId: EventId, prev: EventId): Pdu {
    return forge(resident, room, {
      sender,
      type: "m.room.message",
      content: { msgtype: "m.text", body: `on ${prev}` },
      changes: { event_id: eventId, prev_events: [[prev, { sha256: "x".repeat(43) }]], depth: 1_000 },
    }).event.pdu;
  }

  async function expectAlive(entered: EnteredRoom): Promise<void> {
    const { eventId } = await resident.sendMessage(entered.room, sender, "as ever");
    expect(await loadEvent(pool, eventId)).toMatchObject({ outlier: false, rejection: null });
  }

  it("that names itself is dropped, and its sender told so", async () => {
    const entered = await enterOld();
    const id: EventId = `$itself:${resident.serverName}`;
    const itself = forgeMessage(entered.room, id, id);

    const results = await resident.sendPdus(entered.room, [itself as unknown as JsonValue]);

    expect(results).toMatchObject([
      { status: 200, body: { pdus: { [id]: { error: expect.stringContaining("names itself") } } } },
    ]);
    expect(await countWaitingPdus(pool, entered.roomId)).toBe(0);
    await expectAlive(entered);
  });

  it("that names one which names it waits, and is asked for no further", async () => {
    const entered = await enterOld();
    const [one, other]: readonly EventId[] = [`$one:${resident.serverName}`, `$other:${resident.serverName}`];
    if (one === undefined || other === undefined) throw new Error("two ids are needed");
    const asks = countRequests(resident.front, "get_missing_events", entered);
    const both = [forgeMessage(entered.room, one, other), forgeMessage(entered.room, other, one)];

    await resident.sendPdus(entered.room, both as unknown as JsonValue[]);
    await handleWaiting(scene, entered, 5);

    expect(asks()).toBeLessThanOrEqual(2);
    expect(await loadEvent(pool, one)).toBeUndefined();
    expect(await countWaitingPdus(pool, entered.roomId)).toBe(2);
    await expectAlive(entered);
  });
});

describe("keepWaiting", () => {
  it("lets the server that has most waiting lose its oldest beyond the room's limit, and tells the operator", async () => {
    const { ctx } = sidecar;
    const roomId = "!crowded:example.org";
    const before = lostEventCounts().get("too-many-wait") ?? 0;
    const lines: unknown[] = [];
    const logger = { ...ctx.logger, warn: (line: unknown) => void lines.push(line) } as typeof ctx.logger;
    const wait = (eventId: EventId, origin: string, receivedAt: number): Promise<void> =>
      keepWaiting(
        { ...ctx, logger },
        { eventId, roomId, origin, pdu: {}, reason: "missing-prev-events", receivedAt },
        3,
      );

    await wait("$quiet", "quiet.example", 1_000);
    await wait("$loud-2", "loud.example", 3_000);
    await wait("$loud-1", "loud.example", 2_000);
    expect(lostEventCounts().get("too-many-wait")).toBe(before);
    await wait("$loud-3", "loud.example", 4_000);

    const left = await waitingPdusOf(pool, roomId);
    expect(left.map(({ eventId }) => eventId)).toEqual(["$quiet", "$loud-2", "$loud-3"]);
    expect(lostEventCounts().get("too-many-wait")).toBe(before + 1);
    expect(lines).toEqual([expect.objectContaining({ loss: "too-many-wait", roomId, eventIds: ["$loud-1"] })]);
    await pool.query("DELETE FROM waiting_pdus WHERE room_id = $1", [roomId]);
  });

  it("keeps a PDU once, however often it is sent", async () => {
    const entered = await enterRoom(scene);
    const refusing = resident.trouble({ kind: "refuse", status: 404, at: "get_missing_events" });
    await unsent(scene, entered, 1);
    const { eventId } = await resident.sendMessage(entered.room, sender, "again and again");
    for (let count = 0; count < 3; count += 1) await resident.deliver(entered.room, [eventId]);

    expect(await countWaitingPdus(pool, entered.roomId)).toBe(1);
    await handleWaiting(scene, entered);
    refusing();
    await expectAllThere(scene, entered, [eventId], "partial");
  });
});

describe("receiveWaitingPdus", () => {
  it("gives an event up after a day, for the operator to see, and a later event of the room brings it back", async () => {
    const entered = await enterRoom(scene);
    const refusing = resident.trouble({ kind: "refuse", status: 503 });
    const [missing] = idsOf(await unsent(scene, entered, 1)) as [EventId];
    const lost = await resident.sendMessage(entered.room, sender, "lost?");
    expect(await countWaitingPdus(pool, entered.roomId)).toBe(1);
    const before = lostEventCounts().get("past-unknown") ?? 0;
    const lines: unknown[] = [];
    const logger = { ...sidecar.ctx.logger, warn: (line: unknown) => void lines.push(line) };

    const tomorrow = (): number => Date.now() + 25 * 60 * 60_000;
    await receiveWaitingPdus({ ...sidecar.ctx, now: tomorrow, logger: logger as typeof sidecar.ctx.logger });

    expect(await countWaitingPdus(pool, entered.roomId)).toBe(0);
    expect(lostEventCounts().get("past-unknown")).toBe(before + 1);
    expect(lines).toContainEqual(expect.objectContaining({ loss: "past-unknown", eventIds: [lost.eventId] }));
    refusing();
    const later = await resident.sendMessage(entered.room, sender, "later");
    await handleWaiting(scene, entered);
    await expectAllThere(scene, entered, [missing, lost.eventId, later.eventId], "partial");
  });
});
