import { afterAll, describe, expect, it, onTestFinished } from "vitest";
import type { EventId, RoomId, UserId } from "../../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { receiveKeptPdus } from "../../../../src/rooms/receive/receive-pdu.ts";
import { receiveWaitingPdus } from "../../../../src/rooms/receive/receive-waiting-pdus.ts";
import { createEvent } from "../../../../src/rooms/events/create-event.ts";
import { forgetRoom } from "../../../../src/rooms/join/forget-room.ts";
import { leaveRoom } from "../../../../src/rooms/join/leave-room.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { startOutboxDelivery } from "../../../../src/rooms/send/deliver-outbox.ts";
import { createUser } from "../../../../src/storage/accounts.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { isRoomForgotten } from "../../../../src/storage/forgotten-rooms.ts";
import { beginJoin, endJoin } from "../../../../src/storage/joins-under-way.ts";
import { joinedRooms } from "../../../../src/storage/memberships.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { currentStreamPosition, localMembershipsAt } from "../../../../src/storage/streams.ts";
import { timeline } from "../../../../src/storage/timeline.ts";
import { countWaitingPdus } from "../../../../src/storage/waiting-pdus.ts";
import { openTestDatabase } from "../../../support/database.ts";
import { driveResync } from "../../../support/drive-resync.ts";
import type { HostedRoom } from "../../../resident/hosted-room.ts";
import {
  AT_ROOM,
  AT_STREAM,
  holdAtRequest,
  holdAtStatement,
  holdStream,
  untilWaiting,
  type Held,
} from "../../../support/hold-point.ts";
import { startInProcessSidecar } from "../../../support/in-process-sidecar.ts";
import {
  completeResync,
  enterRoom,
  expectWhole,
  hostRoom,
  join,
  memberEventOf,
  otherProcess,
  ourUser,
  resyncUpTo,
  resyncWanted,
  stepAfter,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene, type Scene } from "../../../support/scene.ts";
import { eventually } from "../../../support/sidecar-process.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;
const bob = ourUser(scene, "bob");

/** A sidecar that sends what it has to tell only when it is made to. */
const quietDatabase = await openTestDatabase();
const quiet: Scene = {
  database: quietDatabase,
  resident,
  sidecar: await startInProcessSidecar(quietDatabase, { notaries: [resident.serverName], delivers: false }),
};
afterAll(() => quiet.sidecar.close());
const carol = quiet.sidecar.userId;
const dave = ourUser(quiet, "dave");

/** Where a join waits for one that is being stored: both begin with the room's row. */
const AT_ROOM_ROW = /INSERT INTO rooms/;

/** One side of a race whose join stops with the resident's answer in hand, or before it is asked for it. */
function joiningSide(ctx: RoomsContext, point: { readonly after: boolean }): Held & { readonly ctx: RoomsContext } {
  const held = holdAtRequest(ctx.federation, "sendJoin", point);
  return { ...held, ctx: { ...ctx, federation: held.federation } };
}

const answered = { after: true } as const;
const unasked = { after: false } as const;

/** What the user's client is told of their membership. */
async function standingOf(of: Scene, userId: UserId, roomId: RoomId): Promise<string | undefined> {
  const { pool } = of.database;
  const standings = await localMembershipsAt(pool, userId, await currentStreamPosition(pool));
  return standings.find((one) => one.roomId === roomId)?.membership;
}

interface UntoldLeave extends EnteredRoom {
  readonly leaveId: EventId;
}

/** Carol has left a room, of which the resident has not heard. */
async function leaveUntold(known: "in part" | "in full"): Promise<UntoldLeave> {
  const entered = await enterRoom(quiet);
  const { room, roomId } = entered;
  if (known === "in full") await completeResync(quiet, entered);
  await leaveRoom(quiet.sidecar.ctx, { userId: carol, roomId, reason: "enough" });
  expect(resident.membership(room, carol)).toBe("join");
  const [leaveId = "$none"] = await leavesOf(carol, roomId);
  return { ...entered, leaveId };
}

async function leavesOf(userId: UserId, roomId: RoomId): Promise<readonly EventId[]> {
  const events = await timeline(quiet.database.pool, roomId, { direction: "forward", limit: 1000 });
  return events
    .filter(({ pdu }) => pdu.sender === userId && pdu.content["membership"] === "leave")
    .map(({ eventId }) => eventId);
}

/** Once the resident has heard of all that was kept from it, and spoken upon it, both know the room alike. */
async function endsAlike(entered: EnteredRoom): Promise<void> {
  const delivery = startOutboxDelivery(quiet.sidecar.ctx);
  onTestFinished(() => delivery.stop());
  await eventually(async () => {
    const left = await quiet.database.pool.query("SELECT 1 FROM outbox WHERE destination = $1", [resident.serverName]);
    return left.rows.length === 0 ? true : undefined;
  });
  await delivery.stop();
  await hearsAndEndsAlike(quiet, entered);
}

async function hearsAndEndsAlike(of: Scene, entered: EnteredRoom): Promise<void> {
  const { eventId } = await resident.sendMessage(entered.room, resident.founder, "who is there?");
  await untilReceived(eventId, of);
  await expectWhole(of, entered);
}

async function resyncsWanted(roomId: string): Promise<readonly unknown[]> {
  return sidecar.wanted.filter((one) => one.roomId === roomId);
}

describe("two joins at once", () => {
  it("of different users make one partial room, whose resync is the first one's", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const [first, second] = [joiningSide(sidecar.ctx, answered), joiningSide(otherProcess(sidecar.ctx), answered)];
    const joining = [join(scene, first.ctx, room), join(scene, second.ctx, room, bob)] as const;
    await Promise.all([first.reached, second.reached]);

    // The second stands before the room's row while the first has all but its position in the stream.
    const lock = await holdStream(database);
    first.release();
    await untilWaiting(database, AT_STREAM);
    second.release();
    await untilWaiting(database, AT_ROOM_ROW);
    await lock.release();
    const [ours, theirs] = await Promise.all(joining);

    expect(await partialRoom(database.pool, roomId)).toMatchObject({ joinEventId: ours.eventId });
    expect(theirs).toMatchObject({ roomId, partial: true });
    expect(await resyncsWanted(roomId)).toEqual([{ roomId, joinEventId: ours.eventId }]);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: ours.eventId } });
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
  });

  it("of one user bring the user in once, by whichever event the room holds for it", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const sides = [joiningSide(sidecar.ctx, answered), joiningSide(otherProcess(sidecar.ctx), answered)] as const;
    const joining = [join(scene, sides[0].ctx, room), join(scene, sides[1].ctx, room)] as const;
    await Promise.all(sides.map((side) => side.reached));
    sides[1].release();
    const second = await joining[1];
    sides[0].release();
    const first = await joining[0];

    expect(await resyncsWanted(roomId)).toEqual([{ roomId, joinEventId: second.eventId }]);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: second.eventId } });
    expect([first.eventId, second.eventId]).toContain(await memberEventOf(scene, roomId, sidecar.userId));
    expect((await joinedRooms(database.pool, sidecar.userId)).filter((id) => id === roomId)).toHaveLength(1);
  });

  for (const order of [
    [0, 1, 2],
    [2, 0, 1],
    [1, 2, 0],
  ] as const) {
    it(`of two users, one of them twice, leave both able to speak (stored as ${order.join(", ")})`, async () => {
      const room = hostRoom(scene);
      const { roomId } = room;
      const users = [sidecar.userId, sidecar.userId, bob];
      const sides = users.map(() => joiningSide(otherProcess(sidecar.ctx), answered));
      const joining = sides.map((side, index) => join(scene, side.ctx, room, users[index]));
      await Promise.all(sides.map((side) => side.reached));
      for (const index of order) {
        sides[index]?.release();
        await joining[index];
        const sender = users[index] ?? bob;
        const content = { msgtype: "m.text", body: `join ${index}` };
        await createEvent(sidecar.ctx, { roomId, sender, type: "m.room.message", content });
      }
      for (const sender of users) {
        await createEvent(sidecar.ctx, { roomId, sender, type: "m.room.message", content: { body: "all here" } });
      }
      await eventually(() => (room.extremities.size === 1 ? true : undefined));
      await completeResync(scene, { room, roomId, target: await resyncWanted(scene, roomId) });
    });
  }

  it("leave both able to speak, though the one that is stored first builds on the other", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const first = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, first.ctx, room);
    await first.reached;
    const entered = await join(scene, otherProcess(sidecar.ctx), room, bob);
    first.release();
    await joining;

    for (const sender of [sidecar.userId, bob]) {
      await createEvent(sidecar.ctx, { roomId, sender, type: "m.room.message", content: { body: "all here" } });
    }
    await eventually(() => (room.extremities.size === 1 ? true : undefined));
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: entered.eventId } });
    expect(await joinedRooms(database.pool, sidecar.userId)).toContain(roomId);
  });

  it("of one user keep what arrives until the last of them has ended", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    const under = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, under.ctx, room);
    await under.reached;

    resident.trouble({ kind: "refuse", status: 403, at: "make_join", times: 1 });
    await expect(join(scene, otherProcess(sidecar.ctx), room)).rejects.toMatchObject({ status: 403 });
    const early = await resident.sendMessage(room, resident.founder, "early");
    expect(early.results).toMatchObject([{ status: 200 }]);
    expect(await countWaitingPdus(database.pool, roomId)).toBe(1);
    under.release();
    const { eventId } = await joining;

    await untilReceived(early.eventId);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });
});

async function untilReceived(eventId: EventId, of = scene): Promise<void> {
  await eventually(async () => {
    await receiveWaitingPdus(of.sidecar.ctx);
    const event = await loadEvent(of.database.pool, eventId);
    return event?.outlier === false ? true : undefined;
  });
}

describe("receiveKeptPdus, after a join that failed", () => {
  /** A join that has failed, what was kept for it, and one that has begun since. */
  async function secondAttempt(room: HostedRoom): Promise<{ side: Held; joining: ReturnType<typeof join> }> {
    const side = joiningSide(sidecar.ctx, unasked);
    const joining = join(scene, side.ctx, room);
    await side.reached;
    return { side, joining };
  }
  const failed = (room: HostedRoom) => ({ roomId: room.roomId, userId: sidecar.userId, attempt: "failed" });

  it("leaves to another join what has come for it", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await beginJoin(database.pool, { ...failed(room), since: Date.now() });
    const { side, joining } = await secondAttempt(room);
    const kept = await resident.sendMessage(room, resident.founder, "kept", { to: [sidecar.serverName] });

    await endJoin(database.pool, failed(room));
    await receiveKeptPdus(sidecar.ctx, roomId);
    expect(await countWaitingPdus(database.pool, roomId)).toBe(1);
    side.release();

    const { eventId } = await joining;
    await untilReceived(kept.eventId);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("does not take away what is sent again for another join while it looks", async () => {
    const room = hostRoom(scene);
    const { roomId } = room;
    await beginJoin(database.pool, { ...failed(room), since: Date.now() });
    const kept = await resident.sendMessage(room, resident.founder, "twice", { to: [sidecar.serverName] });
    await endJoin(database.pool, failed(room));

    const other = otherProcess(sidecar.ctx);
    const cleaning = holdAtStatement(other.database, /DELETE FROM waiting_pdus/);
    const cleaned = receiveKeptPdus({ ...other, database: cleaning.database }, roomId);
    await cleaning.reached;
    const { side, joining } = await secondAttempt(room);
    await resident.deliver(room, [kept.eventId], { to: [sidecar.serverName] });
    cleaning.release();
    await cleaned;
    expect(await countWaitingPdus(database.pool, roomId)).toBe(1);
    side.release();

    const { eventId } = await joining;
    await untilReceived(kept.eventId);
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
  });
});

describe("a second user's join, as the room is declared whole", () => {
  it("is part of it when it comes first", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    const side = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, side.ctx, room, bob);
    await side.reached;
    await resyncUpTo(sidecar.ctx, target, "finish");

    const lock = await holdStream(database);
    side.release();
    await untilWaiting(database, AT_STREAM);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await joining).toMatchObject({ roomId });
    expect(await finishing).toMatchObject({ kind: "completed" });
    await expectWhole(scene, entered);
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
  });

  it("is full at once when it comes second, and makes nothing partial again", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    const side = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, side.ctx, room, bob);
    await side.reached;
    await resyncUpTo(sidecar.ctx, target, "finish");

    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_STREAM);
    side.release();
    await untilWaiting(database, AT_ROOM_ROW);
    await lock.release();

    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await joining).toMatchObject({ roomId, partial: false });
    await expectWhole(scene, entered);
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
  });

  it("is received like any event when it builds on what only the others have", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    const unseen = await resident.sendMessage(room, resident.founder, "unseen", { push: false });
    const side = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, side.ctx, room, bob);
    await side.reached;
    await resyncUpTo(sidecar.ctx, target, "finish");
    expect(await finishResync(sidecar.ctx, target)).toMatchObject({ kind: "completed" });
    side.release();

    expect(await joining).toMatchObject({ roomId, partial: false });
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
    expect(await loadEvent(database.pool, unseen.eventId)).toMatchObject({ outlier: false, rejection: null });
    await expectWhole(scene, entered);
  });

  it("answers only when it is in the room, though its past has to be fetched state by state", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    const unseen = await resident.sendMessage(room, resident.founder, "unseen", { push: false, withhold: true });
    const side = joiningSide(sidecar.ctx, answered);
    // It looks at the user's membership before it asks anyone, and again and again while its own event waits.
    const looking = holdAtStatement(database, /FROM current_memberships WHERE room_id = \$1 AND user_id/, { nth: 3 });
    const joining = join(scene, { ...side.ctx, database: looking.database }, room, bob);
    await side.reached;
    await resyncUpTo(sidecar.ctx, target, "finish");
    expect(await finishResync(sidecar.ctx, target)).toMatchObject({ kind: "completed" });
    resident.trouble({ kind: "refuse", status: 404, errcode: "M_NOT_FOUND", at: "get_missing_events" });
    side.release();

    await looking.reached;
    expect(await countWaitingPdus(database.pool, roomId)).toBe(1);
    resident.clearTrouble();
    resident.reveal(room, unseen.eventId);
    await receiveWaitingPdus(sidecar.ctx);
    looking.release();
    expect(await joining).toMatchObject({ roomId, partial: false });
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
  });
});

describe("a second user's join, as the first user leaves", () => {
  it("enters the room anew, and the first one's resync is over", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const side = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, side.ctx, room, bob);
    await side.reached;
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    await resident.waitForEvent((event) => event.roomId === roomId && event.pdu.content["membership"] === "leave");
    side.release();
    const second = await joining;

    expect(second).toMatchObject({ partial: true });
    const again = { roomId, joinEventId: second.eventId };
    expect(await resyncWanted(scene, roomId)).toEqual(again);
    expect(await stepAfter(scene, target)).toBe("superseded");
    expect(sidecar.wanted).toContainEqual(again);
    // It builds on the leave, of which the second join's state knows nothing.
    const { eventId } = await resident.sendMessage(room, resident.founder, "who is there?");
    await untilReceived(eventId);
    await completeResync(scene, { room, roomId, target: again });
    expect(await joinedRooms(database.pool, sidecar.userId)).not.toContain(roomId);
  });

  it("does not bring the first user back, for whom the leave is made once more", async () => {
    const { room, roomId } = await enterRoom(scene);
    const side = joiningSide(sidecar.ctx, answered);
    const joining = join(scene, side.ctx, room, bob);
    await side.reached;
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });
    side.release();
    const { eventId: joinEventId } = await joining;

    await resyncUpTo(sidecar.ctx, { roomId, joinEventId }, "finish");
    // Nobody is to see the user come back, not even for a moment.
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), { roomId, joinEventId });
    await untilWaiting(database, AT_STREAM);
    expect(await standingOf(scene, sidecar.userId, roomId)).toBe("leave");
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });

    expect(await standingOf(scene, sidecar.userId, roomId)).toBe("leave");
    expect(await joinedRooms(database.pool, sidecar.userId)).not.toContain(roomId);
    await hearsAndEndsAlike(scene, { room, roomId, target: { roomId, joinEventId } });
  });
});

describe("a leave that has not come to the server by which a second user joins", () => {
  for (const known of ["in part", "in full"] as const) {
    it(`is made once more where the room was known ${known}, and stays forgotten`, async () => {
      const left = await leaveUntold(known);
      const { room, roomId } = left;
      const end = known === "in full" ? resident.trouble({ kind: "full-join" }) : () => {};
      await forgetRoom(quiet.sidecar.ctx, { userId: carol, roomId });

      const { eventId, partial } = await join(quiet, quiet.sidecar.ctx, room, dave);
      end();
      expect(partial).toBe(known === "in part");
      if (partial) expect(await driveResync(quiet.sidecar.ctx, roomId, eventId)).toBe("completed");

      expect(await standingOf(quiet, carol, roomId)).toBe("leave");
      expect(await isRoomForgotten(quiet.database.pool, roomId, carol)).toBe(true);
      const again = await loadEvent(quiet.database.pool, (await memberEventOf(quiet, roomId, carol)) ?? "$none");
      expect(again?.eventId).not.toBe(left.leaveId);
      expect(again?.pdu.content).toEqual({ membership: "leave", reason: "enough" });
      await endsAlike(left);
    });
  }

  it("is made once more at once where a light answer names the user, too", async () => {
    // Of a room without a name some members are told all the same.
    const room = resident.hostRoom({
      members: 2,
      servers: 1,
      named: false,
      bans: 0,
      kicks: 0,
      leaves: 0,
      profileChanges: 0,
    });
    const { roomId } = room;
    await join(quiet, quiet.sidecar.ctx, room);
    await leaveRoom(quiet.sidecar.ctx, { userId: carol, roomId });
    const { eventId, partial } = await join(quiet, quiet.sidecar.ctx, room, dave);
    expect(partial).toBe(true);
    const leaves = await leavesOf(carol, roomId);
    expect(leaves).toHaveLength(2);
    expect(await memberEventOf(quiet, roomId, carol)).toBe(leaves[1]);
    expect(await standingOf(quiet, carol, roomId)).toBe("leave");

    expect(await driveResync(quiet.sidecar.ctx, roomId, eventId)).toBe("completed");
    expect(await leavesOf(carol, roomId)).toEqual(leaves);
    await endsAlike({ room, roomId, target: { roomId, joinEventId: eventId } });
  });

  it("is not made again for who has joined again since", async () => {
    const left = await leaveUntold("in part");
    const { room, roomId } = left;
    const { eventId } = await join(quiet, quiet.sidecar.ctx, room, dave);
    const again = await join(quiet, otherProcess(quiet.sidecar.ctx), room);

    expect(await driveResync(quiet.sidecar.ctx, roomId, eventId)).toBe("completed");

    expect(await leavesOf(carol, roomId)).toEqual([left.leaveId]);
    expect(await standingOf(quiet, carol, roomId)).toBe("join");
    expect(await memberEventOf(quiet, roomId, carol)).toBe(again.eventId);
    await endsAlike(left);
  });

  it("undoes no join of the user that is under way while it is made again", async () => {
    const left = await leaveUntold("in part");
    const { room, roomId } = left;
    const { eventId } = await join(quiet, quiet.sidecar.ctx, room, dave);
    const side = joiningSide(otherProcess(quiet.sidecar.ctx), answered);
    const joining = join(quiet, side.ctx, room);
    await side.reached;

    expect(await driveResync(quiet.sidecar.ctx, roomId, eventId)).toBe("completed");
    expect(await standingOf(quiet, carol, roomId)).toBe("leave");
    side.release();
    const again = await joining;

    expect(await standingOf(quiet, carol, roomId)).toBe("join");
    expect(await memberEventOf(quiet, roomId, carol)).toBe(again.eventId);
    await endsAlike(left);
  });

  it("is made for nobody who was kicked, whose return is the room's to decide", async () => {
    const { room, roomId } = await enterRoom(quiet);
    await resident.kick(room, carol, { keep: false });
    expect(await standingOf(quiet, carol, roomId)).toBe("leave");
    const { eventId } = await join(quiet, quiet.sidecar.ctx, room, dave);
    expect(await driveResync(quiet.sidecar.ctx, roomId, eventId)).toBe("completed");
    expect(await leavesOf(carol, roomId)).toEqual([]);
  });
});

describe("a leave, while the user's own join is under way", () => {
  for (const invited of [false, true]) {
    it(`waits for the join's end and takes it back${invited ? ", rather than the invitation" : ""}`, async () => {
      const room = hostRoom(scene);
      const { roomId } = room;
      const userId = ourUser(scene, invited ? "invited" : "uninvited");
      await createUser(database, userId);
      if (invited) await resident.invite(room, userId, { by: resident.front.user });
      const side = joiningSide(sidecar.ctx, answered);
      const joining = join(scene, side.ctx, room, userId);
      await side.reached;
      const other = otherProcess(sidecar.ctx);
      const look = holdAtStatement(other.database, /FROM joins_under_way WHERE room_id = \$1 AND user_id/, { nth: 2 });
      const leaving = leaveRoom({ ...other, database: look.database }, { userId, roomId });
      // It has looked once and is about to look again.
      await look.reached;
      look.release();
      side.release();
      await joining;
      await leaving;

      expect(await joinedRooms(database.pool, userId)).not.toContain(roomId);
      await resident.waitForEvent((event) => event.roomId === roomId && event.pdu.content["membership"] === "leave");
      expect(resident.membership(room, userId)).toBe("leave");
      const asked = resident.front.requests.filter(({ uri }) => uri.includes(encodeURIComponent(roomId)));
      expect(asked.map(({ endpoint }) => endpoint)).not.toContain("send_leave");
    });
  }
});

describe("a join, while the user's invitation is being declined", () => {
  for (const first of ["refusal", "join"] as const) {
    it(`ends as the room has it, where the ${first} reached the resident first`, async () => {
      const room = hostRoom(scene);
      const { roomId } = room;
      const userId = ourUser(scene, `torn-${first}`);
      await createUser(database, userId);
      await resident.invite(room, userId, { by: resident.front.user });
      const other = otherProcess(sidecar.ctx);
      const held = holdAtRequest(other.federation, "sendLeave", { after: first === "refusal" });
      const leaving = leaveRoom({ ...other, federation: held.federation }, { userId, roomId });
      await held.reached;
      const { eventId } = await join(scene, sidecar.ctx, room, userId);
      held.release();
      await leaving;

      const declined = [...room.events.values()]
        .map(({ event }) => event)
        .find(({ pdu }) => {
          return pdu.state_key === userId && pdu.content["membership"] === "leave";
        });
      await untilReceived(declined?.eventId ?? "$none");
      await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
      const standings = await localMembershipsAt(database.pool, userId, await currentStreamPosition(database.pool));
      const standing = standings.find((one) => one.roomId === roomId)?.membership;
      expect(standing).toBe(resident.membership(room, userId));
      expect((await joinedRooms(database.pool, userId)).includes(roomId)).toBe(standing === "join");
    });
  }
});
