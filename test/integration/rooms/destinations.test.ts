import { describe, expect, it } from "vitest";
import type { EventId, ServerName, UserId } from "../../../src/matrix/identifiers.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { ownEventsSince } from "../../../src/storage/own-event-destinations.ts";
import { partialEventIds, partialRoom } from "../../../src/storage/partial-state.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { openScene } from "../../support/scene.ts";

const { database, resident, sidecar } = await openScene();
const { ctx, userId } = sidecar;
const quiet = { push: false };

// Servers of the room that nobody reaches: what is to be sent to them stays in the outbox, where it can be seen.
const LISTED: ServerName = "server-001.rooms.test";
const HIDDEN: ServerName = "server-002.rooms.test";
const GONE: ServerName = "server-077.rooms.test";

let members = 60;

/** A room whose join named the servers of its members, but not `HIDDEN`, and `GONE`, of which nobody is in it. */
async function enter(): Promise<{ readonly room: HostedRoom; readonly joinEventId: EventId }> {
  members += 1;
  const room = resident.hostRoom({ members });
  const lies = [
    resident.trouble({ kind: "lie", lie: "hide-server", server: HIDDEN, at: "send_join" }),
    resident.trouble({ kind: "lie", lie: "show-server", server: GONE, at: "send_join" }),
  ];
  const { eventId } = await joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
  for (const end of lies) end();
  return { room, joinEventId: eventId };
}

async function say({ roomId }: HostedRoom, body = "hello"): Promise<EventId> {
  const content = { msgtype: "m.text", body };
  return (await createEvent(ctx, { roomId, sender: userId, type: "m.room.message", content })).eventId;
}

/** To whom the event goes, of the servers that can't be reached. */
async function destinationsOf(eventId: EventId): Promise<readonly ServerName[]> {
  const { rows } = await database.pool.query<{ destination: ServerName }>(
    "SELECT destination FROM outbox WHERE event_id = $1 AND destination LIKE '%.rooms.test' ORDER BY destination",
    [eventId],
  );
  return rows.map((row) => row.destination);
}

async function isOwed(eventId: EventId): Promise<boolean> {
  return ((await database.pool.query("SELECT FROM outbox WHERE event_id = $1", [eventId])).rowCount ?? 0) > 0;
}

describe("an event of ours in a partial room", () => {
  it("goes to the servers that the join named, though we know no member of theirs", async () => {
    const { room } = await enter();
    const destinations = await destinationsOf(await say(room));
    expect(destinations).toEqual(expect.arrayContaining([LISTED, GONE]));
    expect(destinations).not.toContain(HIDDEN);
  });

  it("goes to the servers of members that we have seen joining since, too", async () => {
    const { room } = await enter();
    await resident.join(room, `@newcomer:${HIDDEN}`);
    const destinations = await destinationsOf(await say(room));
    expect(destinations).toEqual(expect.arrayContaining([LISTED, HIDDEN, GONE]));
  });

  it("goes to them all as long as the room's row stands, also when the event itself is not partial", async () => {
    const { room, joinEventId } = await enter();
    await driveResync(ctx, room.roomId, joinEventId, (step) => step.kind === "finish");
    expect(await partialRoom(database.pool, room.roomId)).toBeDefined();

    const eventId = await say(room);

    expect(await partialEventIds(database.pool, [eventId])).toEqual(new Set());
    expect(await destinationsOf(eventId)).toEqual(expect.arrayContaining([LISTED, GONE]));
    expect((await ownEventsSince(database.pool, room.roomId, { from: 0n })).map((one) => one.eventId)).toEqual([
      eventId,
    ]);
  });

  it("goes to the servers of joined members alone once the row is gone", async () => {
    const { room, joinEventId } = await enter();
    await driveResync(ctx, room.roomId, joinEventId);
    const destinations = await destinationsOf(await say(room));
    expect(destinations).toEqual(expect.arrayContaining([LISTED, HIDDEN]));
    expect(destinations).not.toContain(GONE);
  });

  it("goes to the server of a member whom it removes", async () => {
    const { room } = await enter();
    const target: UserId = `@newcomer:${HIDDEN}`;
    await resident.join(room, target);
    const content = { users: { [resident.founder]: 100, [userId]: 100 } };
    await resident.sendState(room, { type: "m.room.power_levels", content });

    const kick = await createEvent(ctx, {
      roomId: room.roomId,
      sender: userId,
      type: "m.room.member",
      stateKey: target,
      content: { membership: "leave" },
    });

    expect(await destinationsOf(kick.eventId)).toContain(HIDDEN);
    expect(await destinationsOf(await say(room))).not.toContain(HIDDEN);
  });
});

describe("an event that is not ours", () => {
  it("is sent on to nobody, whether it was pushed to us or fetched to fill a gap", async () => {
    const { room } = await enter();
    const missed = await resident.sendMessage(room, resident.founder, "missed", quiet);
    const pushed = await resident.sendMessage(room, resident.founder, "pushed");
    for (const { eventId } of [missed, pushed]) {
      expect(await loadEvent(database.pool, eventId)).toMatchObject({ outlier: false, rejection: null });
      expect(await isOwed(eventId)).toBe(false);
    }
  });

  it("is no more ours for being the join of our own user, which the resident sends", async () => {
    const { room, joinEventId } = await enter();
    const bob: UserId = `@bob-${members}:${sidecar.serverName}`;
    const second = await joinRoom(ctx, { userId: bob, roomId: room.roomId, via: [resident.serverName] });
    expect(await isOwed(joinEventId)).toBe(false);
    expect(await isOwed(second.eventId)).toBe(false);
    expect(await destinationsOf(await say(room))).toEqual(expect.arrayContaining([LISTED, GONE]));
  });

  it("is not sent again for coming back to us", async () => {
    const { room } = await enter();
    const eventId = await say(room);
    await resident.waitForEvent((event) => event.eventId === eventId);
    await database.pool.query("DELETE FROM outbox WHERE event_id = $1", [eventId]);
    const [result] = await resident.deliver(room, [eventId]);
    expect(result).toMatchObject({ status: 200 });
    expect(await isOwed(eventId)).toBe(false);
  });
});
