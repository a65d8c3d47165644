import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { reconcileResyncs } from "../../../src/rooms/upkeep/reconcile-resyncs.ts";
import { countPartialEvents } from "../../../src/storage/partial-state.ts";
import { loadResyncControl, storeResyncControl } from "../../../src/storage/resync-control.ts";
import { countWaitingPdus } from "../../../src/storage/waiting-pdus.ts";
import type { Front } from "../../resident/front.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { rowsNaming } from "../../support/rows-naming.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene({ fronts: 2 });
const { ctx, userId } = sidecar;
const [, far] = resident.fronts as [Front, Front];

/** What may stand on when the last of our users is out of a room, and why. All else that names the room must go. */
const KEPT: Readonly<Record<string, string>> = {
  rooms: "the room may be joined again, and its history be read by who was in it",
  events: "the same",
  state_snapshots: "the states of events whose past was known in full",
  current_memberships: "who was in the room when we left: those servers may ask for our events",
  forward_extremities: "the same; a re-join replaces them",
  current_state_delta_stream: "clients that have not asked since are told what had changed before",
  local_membership_stream: "clients are told that their user has left",
  own_event_destinations: "whoever was sent an event of ours may ask for it, and we don't know who was in the room",
};

let members = 30;

interface Entered {
  readonly room: HostedRoom;
  readonly joinEventId: EventId;
  readonly bob: UserId;
}

/** Two users of ours in a partial room in which much is under way, and a server that is down. */
async function enter(): Promise<Entered> {
  members += 1;
  const room = resident.hostRoom({ members });
  const { roomId } = room;
  const bob: UserId = `@bob-${members}:${sidecar.serverName}`;
  const via = [resident.serverName];
  const { eventId: joinEventId } = await joinRoom(ctx, { userId, roomId, via });
  await joinRoom(ctx, { userId: bob, roomId, via });
  await say(room, "from us");
  await resident.sendMessage(room, resident.founder, "from them");
  return { room, joinEventId, bob };
}

async function say({ roomId }: HostedRoom, body: string): Promise<EventId> {
  const content = { msgtype: "m.text", body };
  return (await createEvent(ctx, { roomId, sender: userId, type: "m.room.message", content })).eventId;
}

/** An event whose past nobody tells waits; the answer to a `/state_ids` is kept; an operator prefers a server. */
async function leaveThingsUnderWay({ room, joinEventId }: Entered): Promise<void> {
  const { roomId } = room;
  const silent = resident.trouble({ kind: "refuse", status: 404, at: ["get_missing_events", "state", "event"] });
  await resident.sendMessage(room, resident.founder, "missed", { push: false });
  await resident.sendMessage(room, resident.founder, "seen, but not what is before it");
  const step = await nextResyncStep(ctx, { roomId, joinEventId });
  if (step.kind !== "fetch") throw new Error(`the next step is ${step.kind}`);
  const [eventId] = step.eventIds as [EventId];
  await fetchMissingState(ctx, { roomId, joinEventId, eventId, server: resident.serverName }).catch(() => undefined);
  silent();
  const serverName = resident.serverName;
  await storeResyncControl(database, { roomId, wish: "prefer-server", serverName, by: "root", at: 0, why: "" });
  const before = await rowsNaming(database, roomId);
  expect(Object.keys(before)).toEqual(
    expect.arrayContaining(["waiting_pdus", "resync_state_ids", "resync_control", "partial_state_rooms_servers"]),
  );
}

async function expectCleanedUp({ room }: Entered): Promise<void> {
  const kept = await rowsNaming(database, room.roomId);
  expect(Object.keys(kept).filter((table) => !(table in KEPT))).toEqual([]);
  expect(await countPartialEvents(database.pool, room.roomId)).toBe(0);
}

async function owedTo(front: Front, { roomId }: HostedRoom): Promise<readonly string[]> {
  const { rows } = await database.pool.query<{ what: string }>(
    `SELECT coalesce(membership, type) AS what FROM outbox JOIN events USING (event_id)
     WHERE destination = $1 AND room_id = $2 ORDER BY outbox.stream_id`,
    [front.serverName, roomId],
  );
  return rows.map((row) => row.what);
}

const departures: readonly (readonly [string, (entered: Entered) => Promise<unknown>])[] = [
  [
    "has left",
    async ({ room, bob }) => {
      await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
      await leaveRoom(ctx, { userId, roomId: room.roomId });
    },
  ],
  [
    "was kicked from outside",
    async ({ room, bob }) => {
      await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
      await untilKnown(room, bob);
      await resident.kick(room, userId);
    },
  ],
  [
    "was banned from outside",
    async ({ room, bob }) => {
      await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
      await untilKnown(room, bob);
      await resident.ban(room, userId);
    },
  ],
];

async function untilKnown(room: HostedRoom, user: UserId): Promise<void> {
  await expect.poll(() => resident.membership(room, user)).toBe("leave");
}

describe("a partial room of which the last of our users", () => {
  it.each(departures)("%s is cleaned up: no row of it is orphaned", async (_how, depart) => {
    const entered = await enter();
    await leaveThingsUnderWay(entered);

    await depart(entered);

    expect(await driveResync(ctx, entered.room.roomId, entered.joinEventId)).toBe("left");
    await expectCleanedUp(entered);
    expect(await countWaitingPdus(database.pool, entered.room.roomId)).toBe(0);
  });

  it.each(departures.slice(0, 2))("%s can be joined again, partially again", async (_how, depart) => {
    const entered = await enter();
    const { room, joinEventId } = entered;
    await depart(entered);
    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("left");
    await untilKnown(room, userId);

    const again = await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });

    expect(again.partial).toBe(true);
    expect(await driveResync(ctx, room.roomId, again.eventId)).toBe("completed");
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("has left keeps in the outbox what a server that is down has not got, the leave last", async () => {
    await far.close();
    const entered = await enter();
    const { room, bob, joinEventId } = entered;
    await leaveRoom(ctx, { userId: bob, roomId: room.roomId });
    await leaveRoom(ctx, { userId, roomId: room.roomId });

    expect(await driveResync(ctx, room.roomId, joinEventId)).toBe("left");

    expect(await owedTo(far, room)).toEqual(["m.room.message", "leave", "leave"]);
    await far.listen();
    const owed = async (): Promise<readonly string[]> => {
      // Each time: an attempt that was under way may still fail and be waited after.
      await ctx.federation.noteServerAlive(far.serverName);
      return await owedTo(far, room);
    };
    await expect.poll(owed, { timeout: 20_000, interval: 200 }).toEqual([]);
  });
});

describe("a partial room that is left", () => {
  it("is still left for a resync that asks again, as one does that was waiting for a server", async () => {
    const { room, bob, joinEventId } = await enter();
    const target = { roomId: room.roomId, joinEventId };
    for (const user of [bob, userId]) await leaveRoom(ctx, { userId: user, roomId: room.roomId });
    expect(await nextResyncStep(ctx, target)).toEqual({ kind: "left" });
    expect(await nextResyncStep(ctx, target)).toEqual({ kind: "left" });
  });

  it("while Temporal is away is cleaned up when that is back", async () => {
    const entered = await enter();
    const { room, bob, joinEventId } = entered;
    const { roomId } = room;
    const away = async (): Promise<never> => {
      throw new Error("Temporal is away");
    };
    const without: RoomsContext = { ...ctx, resyncs: { start: away, wake: away, cancel: away } };
    for (const user of [bob, userId]) await leaveRoom(without, { userId: user, roomId });
    await expect(reconcileResyncs(without)).rejects.toThrow("away");
    await untilKnown(room, userId);

    const told: string[] = [];
    const back: RoomsContext = {
      ...ctx,
      resyncs: {
        start: async (id) => void (id === roomId && told.push("start")),
        wake: async (id) => void (id === roomId && told.push("wake")),
        cancel: away,
      },
    };
    await reconcileResyncs(back);

    expect(told).toEqual(["start", "wake"]);
    expect(await driveResync(ctx, roomId, joinEventId)).toBe("left");
    await expectCleanedUp(entered);
  });

  it("after its resync was cancelled is cleaned up by the reconciler alone", async () => {
    const entered = await enter();
    const { room, bob } = entered;
    const { roomId } = room;
    await storeResyncControl(database, { roomId, wish: "cancelled", by: "root", at: 0, why: "too large" });
    for (const user of [bob, userId]) await leaveRoom(ctx, { userId: user, roomId });

    await reconcileResyncs(ctx);

    await expectCleanedUp(entered);
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
    expect(sidecar.wanted.filter((one) => one.roomId === roomId)).toHaveLength(1);
  });

  it("is not given up for a user who joined again in the same moment", async () => {
    const entered = await enter();
    const { room, bob, joinEventId } = entered;
    const { roomId } = room;
    await leaveRoom(ctx, { userId: bob, roomId });
    // Where the resident does not know of it yet, the leave is made once more.
    await resident.waitForEvent(({ pdu }) => pdu.sender === bob && pdu.content["membership"] === "leave");
    await resident.kick(room, userId);
    const again = await joinRoom(ctx, { userId, roomId, via: [resident.serverName] });

    expect(await driveResync(ctx, roomId, joinEventId)).toBe("superseded");

    expect(await driveResync(ctx, roomId, again.eventId)).toBe("completed");
    expect(await sidecar.currentState(roomId)).toEqual(resident.fullState(room));
  });
});
