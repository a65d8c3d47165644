import { beforeEach, describe, expect, it } from "vitest";
import { createOperatorRouter } from "../../../src/operator/router.ts";
import type { ResyncWorkflows } from "../../../src/operator/resync-workflows.ts";
import { runCli } from "../../../src/main/cli.ts";
import type { RoomId, UserId } from "../../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../../src/rooms/context.ts";
import { createEvent } from "../../../src/rooms/events/create-event.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { finishPurges, purgeRoomOfUsers } from "../../../src/rooms/join/purge-room.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { transaction } from "../../../src/storage/database.ts";
import { insertOutliers } from "../../../src/storage/events.ts";
import { countOwedOfRoom, loadRoomPurge, storeRoomPurge } from "../../../src/storage/room-purges.ts";
import { appendLocalMembership, takeStreamPositions } from "../../../src/storage/streams.ts";
import type { Front } from "../../resident/front.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { driveResync } from "../../support/drive-resync.ts";
import { startLoopbackClientApi, type TestClient } from "../../support/loopback-client.ts";
import { rowsNaming } from "../../support/rows-naming.ts";
import { openScene } from "../../support/scene.ts";
import { anEvent, aStoredRoom } from "../../support/stored-room.ts";

const TOKEN = "the-operators-own-token";
const DAY = 24 * 60 * 60_000;

const { database, resident, sidecar } = await openScene({ fronts: 2 });
const [, far] = resident.fronts as [Front, Front];

/** What the workflow engine does when it is told that a resync is cancelled. */
let onCancel: (roomId: RoomId) => Promise<void>;
const ctx: RoomsContext = {
  ...sidecar.ctx,
  resyncs: { ...sidecar.ctx.resyncs, cancel: async (roomId) => await onCancel(roomId) },
};
const workflows: ResyncWorkflows = {
  standing: async () => ({ state: "none" }),
  signalRetry: async () => false,
  signalPreferServer: async () => false,
  link: () => undefined,
};
const api = await startLoopbackClientApi(database, {
  ...ctx,
  extraRouters: [createOperatorRouter({ ...ctx, workflows }, TOKEN)],
});

beforeEach(() => {
  onCancel = async () => undefined;
});

let rooms = 0;

interface Entered {
  readonly user: TestClient;
  readonly room: HostedRoom;
  readonly roomId: RoomId;
  readonly joinEventId: `$${string}`;
}

async function enter(): Promise<Entered> {
  rooms += 1;
  const user = await api.register(`user${rooms}`);
  const room = resident.hostRoom({ members: 40 + rooms });
  const joinEventId = await join(user.userId, room);
  return { user, room, roomId: room.roomId, joinEventId };
}

async function join(userId: UserId, { roomId }: HostedRoom): Promise<`$${string}`> {
  return (await joinRoom(ctx, { userId, roomId, via: [resident.serverName] })).eventId;
}

async function say(roomId: RoomId, sender: UserId): Promise<void> {
  await createEvent(ctx, { roomId, sender, type: "m.room.message", content: { msgtype: "m.text", body: "hello" } });
}

async function ask(method: string, path: string, body?: unknown, token = TOKEN): Promise<[number, unknown]> {
  const answer = await fetch(`${api.url}/_fastjoin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return [answer.status, await answer.json()];
}

const purge = (roomId: string, token?: string): Promise<[number, unknown]> =>
  ask("POST", `/rooms/${encodeURIComponent(roomId)}/purge`, { why: "of no use" }, token);

async function purged(roomId: RoomId): Promise<unknown> {
  const [status, body] = await purge(roomId);
  expect(status).toBe(200);
  return body;
}

/** Most servers of a generated room are only names: as if they had taken what is owed to them. */
async function namesHaveTaken(): Promise<void> {
  await database.pool.query("DELETE FROM outbox WHERE destination LIKE '%.rooms.test'");
}

/** A later round of the reconciler. */
async function roundAfter(milliseconds: number): Promise<void> {
  await finishPurges({ ...ctx, now: () => Date.now() + milliseconds });
}

async function untilOut(room: HostedRoom, userId: UserId): Promise<void> {
  await expect.poll(() => resident.membership(room, userId)).toBe("leave");
}

async function farIsBack(): Promise<void> {
  await far.listen();
  await ctx.federation.noteServerAlive(far.serverName);
}

describe("the purge of a room by the operator", () => {
  it("needs the operator's token, and a room that we hold", async () => {
    const { roomId, room, user } = await enter();
    expect((await purge(roomId, "some other token"))[0]).toBe(401);
    expect(await purge("!nowhere:x.org")).toMatchObject([404, { errcode: "M_NOT_FOUND" }]);
    expect(await purge("nonsense")).toMatchObject([400, { errcode: "M_INVALID_PARAM" }]);
    expect(resident.membership(room, user.userId)).toBe("join");
  });

  it("in the middle of a resync has all our users leave, ends the resync, and deletes what we hold", async () => {
    const { roomId, room, user, joinEventId } = await enter();
    const bob: UserId = `@bob-${rooms}:${sidecar.serverName}`;
    await join(bob, room);
    await say(roomId, bob);
    const cancelled: RoomId[] = [];
    onCancel = async (id) => void cancelled.push(id);

    const body = await purged(roomId);

    expect(body).toMatchObject({ left: [bob, user.userId].toSorted(), notLeft: [] });
    for (const userId of [user.userId, bob]) await untilOut(room, userId);
    expect(cancelled).toEqual([roomId]);
    expect(await nextResyncStep(ctx, { roomId, joinEventId })).toEqual({ kind: "left" });
    expect(await ask("GET", `/resyncs/${encodeURIComponent(roomId)}`)).toMatchObject([404, {}]);
    // Whoever has lost the answer asks again.
    expect(await purged(roomId)).toMatchObject({ left: [], notLeft: [] });
    await roundAfter(8 * DAY);
    expect(await rowsNaming(database, roomId)).toEqual({});
    expect(await purge(roomId)).toMatchObject([404, { errcode: "M_NOT_FOUND" }]);
  });

  it("keeps what is owed to a server that is down, and nothing else, until that has it", async () => {
    const { roomId, room, user } = await enter();
    await far.close();
    await say(roomId, user.userId);

    expect(await purged(roomId)).toMatchObject({ owed: expect.any(Number) as number });

    await untilOut(room, user.userId);
    await namesHaveTaken();
    expect(await rowsNaming(database, roomId)).toEqual({
      rooms: 1,
      events: 2,
      local_membership_stream: 1,
      room_purges: 1,
    });
    await roundAfter(2 * DAY);
    expect(await rowsNaming(database, roomId)).toMatchObject({ events: 2 });
    await far.listen();
    const heard = async (): Promise<readonly unknown[]> => {
      // Each time: an attempt that was under way may still fail and be waited after.
      await ctx.federation.noteServerAlive(far.serverName);
      return far.transactions.flatMap(({ pdus }) =>
        (pdus as readonly { room_id: string; type: string }[])
          .filter((pdu) => pdu.room_id === roomId)
          .map(({ type }) => type),
      );
    };
    await expect.poll(heard, { timeout: 20_000, interval: 200 }).toEqual(["m.room.message", "m.room.member"]);
    await expect.poll(() => countOwedOfRoom(database.pool, roomId)).toBe(0);
    await roundAfter(DAY / 2);
    expect(await rowsNaming(database, roomId)).toMatchObject({ local_membership_stream: 1 });
    await roundAfter(2 * DAY);
    expect(await rowsNaming(database, roomId)).toEqual({});
  });

  it("gives up after a week on a server that stays down", async () => {
    const { roomId, user } = await enter();
    await far.close();
    await purged(roomId);
    await roundAfter(6 * DAY);
    expect(await rowsNaming(database, roomId)).toMatchObject({ events: 1 });

    await roundAfter(8 * DAY);

    expect(await rowsNaming(database, roomId)).toEqual({});
    await farIsBack();
    expect((await user.ok("GET", "joined_rooms")).joined_rooms).toEqual([]);
  });

  it("is told to clients as a leave, also to those that ask later", async () => {
    const { roomId, user } = await enter();
    const filter = JSON.stringify({ room: { state: { lazy_load_members: true } } });
    const { next_batch: since } = await user.sync({ filter });

    await purged(roomId);

    const { rooms: told } = await user.sync({ filter, since });
    expect(Object.keys(told.leave)).toEqual([roomId]);
    expect((await user.call("GET", `rooms/${encodeURIComponent(roomId)}/state`)).status).toBe(403);
    expect((await user.sync({ filter })).rooms?.join).toBeUndefined();
  });

  it("lets the room be joined again, partially again, whose rows no later round touches", async () => {
    const { roomId, room, user } = await enter();
    await far.close();
    await purged(roomId);
    await untilOut(room, user.userId);

    const joinEventId = await join(user.userId, room);

    expect(await loadRoomPurge(database.pool, roomId)).toBeUndefined();
    await roundAfter(8 * DAY);
    expect(await driveResync(ctx, roomId, joinEventId)).toBe("completed");
    await farIsBack();
    await expect.poll(() => sidecar.currentState(roomId)).toEqual(resident.fullState(room));
    const [status, report] = await ask("GET", `/resyncs/${encodeURIComponent(roomId)}`);
    expect([status, report]).toEqual([200, { roomId, state: "complete" }]);
  });

  it("works on a room that is whole, and on one that we know by name alone", async () => {
    const { roomId, room, user, joinEventId } = await enter();
    await driveResync(ctx, roomId, joinEventId);
    expect(await purged(roomId)).toMatchObject({ left: [user.userId] });
    await untilOut(room, user.userId);

    const named = await aStoredRoom(database);
    expect(await purged(named)).toEqual({ left: [], notLeft: [], owed: 0 });
  });

  it("works while Temporal is away", async () => {
    const { roomId, room, user } = await enter();
    onCancel = async () => {
      throw new Error("Temporal is away");
    };
    expect(await purged(roomId)).toMatchObject({ left: [user.userId] });
    await untilOut(room, user.userId);
  });

  it("makes a user leave too who joins meanwhile, and gives up where that goes on", async () => {
    const { roomId, room } = await enter();
    let joiners = 0;
    const joinMeanwhile = async (): Promise<void> => {
      joiners += 1;
      await join(`@joiner-${rooms}-${joiners}:${sidecar.serverName}`, room);
    };
    onCancel = async () => {
      if (joiners === 0) await joinMeanwhile();
    };
    expect(await purged(roomId)).toMatchObject({
      left: expect.arrayContaining([`@joiner-${rooms}-1:${sidecar.serverName}`]) as unknown,
    });

    const other = await enter();
    onCancel = async () => {
      joiners += 1;
      await join(`@joiner-${rooms}-${joiners}:${sidecar.serverName}`, other.room);
    };
    expect(await purge(other.roomId)).toMatchObject([409, { errcode: "FASTJOIN.STILL_JOINED" }]);
  });

  it("is ended later where a crash has interrupted it", async () => {
    const { roomId, room, user } = await enter();
    await storeRoomPurge(database.pool, { roomId, by: "root", why: "", at: Date.now() });
    await roundAfter(1_000);
    expect(resident.membership(room, user.userId)).toBe("join");

    await roundAfter(2 * 60_000);

    await untilOut(room, user.userId);
    expect(await loadRoomPurge(database.pool, roomId)).toMatchObject({ purgedAt: expect.any(Number) as number });
  });

  it("takes away later what a step of the resync stored at the same time", async () => {
    const { roomId } = await enter();
    await purged(roomId);
    await insertOutliers(database.pool, [{ event: anEvent(roomId, `$late-${roomId}`), rejection: null }]);

    await roundAfter(8 * DAY);

    expect(await rowsNaming(database, roomId)).toEqual({});
  });

  it("ends with an invitation to the room", async () => {
    const { roomId, room, user } = await enter();
    await purged(roomId);
    await untilOut(room, user.userId);
    const invitation = anEvent(roomId, `$invitation-${roomId}`);
    await transaction(database, async (tx) => {
      await insertOutliers(tx, [{ event: invitation, rejection: null }]);
      const streamId = await takeStreamPositions(tx, 1);
      const { eventId } = invitation;
      await appendLocalMembership(tx, { streamId, userId: user.userId, roomId, membership: "invite", eventId });
    });

    await roundAfter(8 * DAY);

    expect(await loadRoomPurge(database.pool, roomId)).toBeUndefined();
    expect(await rowsNaming(database, roomId)).toMatchObject({ rooms: 1, local_membership_stream: 2 });
  });

  it("goes on where one user's leave is refused", async () => {
    const { roomId, user } = await enter();
    // A create event that lets nobody of other servers act: no event of ours can be made in the room any more.
    await database.pool
      .query(`UPDATE events SET pdu = replace(pdu, '"room_version"', '"m.federate":false,"room_version"')
      WHERE room_id = '${roomId}' AND type = 'm.room.create'`);
    const result = await purgeRoomOfUsers(ctx, { roomId, by: "root", why: "" });
    expect(result).toEqual({ left: [], notLeft: [user.userId], owed: 0 });
    expect(await rowsNaming(database, roomId)).toEqual({ rooms: 1, room_purges: 1 });
  });
});

describe("fastjoin purge", () => {
  it("purges a room from the command line", async () => {
    const { roomId, user } = await enter();
    let text = "";
    const env = {
      FASTJOIN_SERVER_NAME: sidecar.serverName,
      FASTJOIN_CLIENT_LISTEN: new URL(api.url).host,
      FASTJOIN_OPERATOR_TOKEN: TOKEN,
      FASTJOIN_DATA_DIR: "/nonexistent",
    };
    const line = { env, write: (more: string) => void (text += more), now: () => 0 };
    expect(await runCli(["purge", roomId, "--why", "enough"], line)).toBe(0);
    expect(text).toMatch(`purged ${roomId}: left by ${user.userId}`);
    expect(await runCli(["purge", roomId], line)).toBe(0);
    expect(await runCli(["purge", "!nowhere:x.org"], line)).toBe(1);
  });
});
