import { describe, expect, it } from "vitest";
import type { Event } from "../../../../src/matrix/event.ts";
import type { EventId, ServerName, UserId } from "../../../../src/matrix/identifiers.ts";
import { splitStateKey } from "../../../../src/matrix/state.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { acceptEvents } from "../../../../src/rooms/events/accept-event.ts";
import { leaveRoom } from "../../../../src/rooms/join/leave-room.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { nextResyncStep } from "../../../../src/rooms/resync/resync-next-step.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { addUnknownMembers, members } from "../../../../src/storage/memberships.ts";
import { holdLock, untilWaiting } from "../../../support/hold-point.ts";
import { completeResync, enterRoom, join, otherProcess, resyncUpTo } from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";

const scene = await openScene();
const { database, resident, sidecar } = scene;

const AT_MEMBERS = /INSERT INTO current_memberships/;

/** Something happens when the members are written, and the room is not locked yet. */
function afterMembersAhead(happens: () => Promise<unknown>): RoomsContext {
  let once: (() => Promise<unknown>) | undefined = happens;
  const reach = async (point: string): Promise<void> => {
    if (point !== "after: write members ahead") return;
    const now = once;
    once = undefined;
    await now?.();
  };
  return { ...otherProcess(sidecar.ctx), reach };
}

async function memberRows(roomId: string): Promise<ReadonlyMap<string, string>> {
  const rows = await members(database.pool, roomId as Parameters<typeof members>[1]);
  return new Map(rows.map(({ userId, eventId }) => [userId, eventId]));
}

async function membersOfState(
  roomId: Parameters<typeof sidecar.currentState>[0],
): Promise<ReadonlyMap<string, string>> {
  const state = [...(await sidecar.currentState(roomId))].map(([key, id]) => [splitStateKey(key), id] as const);
  return new Map(state.flatMap(([[type, userId], id]) => (type === "m.room.member" ? [[userId, id] as const] : [])));
}

describe("members that are written ahead", () => {
  it("are as the full state has them where some of them leave before the room is locked", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const [kicked, left] = residentMembers(entered).slice(-2);
    const ctx = afterMembersAhead(async () => {
      expect((await memberRows(roomId)).has(kicked ?? "")).toBe(true);
      await resident.kick(room, kicked as `@${string}`);
      await resident.leave(room, left as `@${string}`);
    });
    await finishResync(ctx, target);
    await completeResyncIfPartial(entered);
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));
  });

  it("meet events of the same members that come together in no deadlock", async () => {
    const entered = await enterRoom(scene);
    const { room, roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const known = residentMembers(entered).toSorted() as UserId[];
    const [first, between, last] = [known[0], known[1], known.at(-1)] as [UserId, UserId, UserId];
    const row = `INSERT INTO current_memberships (room_id, user_id, server_name, membership, event_id)
      VALUES ($1, $2, 'server', 'join', '$event')`;
    const lock = await holdLock(database, row, [roomId, between]);
    const finished = finishResync(otherProcess(sidecar.ctx), target);
    await untilWaiting(database, AT_MEMBERS);
    const inputs: { readonly event: Event; readonly origin: ServerName }[] = [];
    for (const member of [last, first]) {
      const { event } = await resident.join(room, member, { push: false });
      inputs.push({ event, origin: resident.serverName });
    }
    const accepted = acceptEvents(sidecar.ctx, inputs);
    await untilWaiting(database, AT_MEMBERS, 2);
    await lock.release();
    expect(await accepted).toHaveLength(2);
    await finished;
    await completeResyncIfPartial(entered);
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));
  });

  it("are gone again where an attempt wrote them that was broken off, and the full state lacks them since", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const ctx = afterMembersAhead(async () => await Promise.reject(new Error("the worker is killed")));
    await expect(finishResync(ctx, target)).rejects.toThrow("the worker is killed");
    const member = residentMembers(entered).at(-1) as UserId;
    const eventId = (await memberRows(roomId)).get(member) as EventId;
    // As if the attempt had gone by a state with one member more.
    const more = { userId: "@more:gone.example", eventId } as const;
    expect(await addUnknownMembers(database.pool, roomId, [more])).toEqual([more.userId]);
    expect(await finishResync(otherProcess(sidecar.ctx), target)).toMatchObject({ kind: "completed" });
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));
  });

  it("are the last that is written where the resync is cancelled meanwhile", async () => {
    const entered = await enterRoom(scene);
    const { roomId, target } = entered;
    await resyncUpTo(sidecar.ctx, target, "finish");
    const cancelled = new AbortController();
    const ctx = afterMembersAhead(async () => cancelled.abort(new Error("cancelled by root")));
    await expect(finishResync(ctx, target, cancelled.signal)).rejects.toThrow("cancelled by root");
    expect(await partialRoom(database.pool, roomId)).toBeDefined();
    await completeResync(scene, entered);
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));
  });

  it("are gone again where the room is left and given up, also for the next join", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    await resyncUpTo(sidecar.ctx, target, "finish");
    const ctx = afterMembersAhead(async () => {
      await leaveRoom(sidecar.ctx, { roomId, userId: sidecar.userId });
      expect(await nextResyncStep(sidecar.ctx, target)).toMatchObject({ kind: "left" });
    });
    expect(await finishResync(ctx, target)).toEqual({ kind: "superseded" });
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));

    const { eventId: joinEventId } = await join(scene, sidecar.ctx, room);
    expect(await memberRows(roomId)).toEqual(await membersOfState(roomId));
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId } });
  });
});

function residentMembers({ room }: { readonly room: Parameters<typeof resident.fullState>[0] }): readonly string[] {
  const keys = [...resident.fullState(room).keys()].map(splitStateKey);
  return keys.flatMap(([type, userId]) =>
    type === "m.room.member" && !userId.endsWith(`:${sidecar.serverName}`) && userId !== resident.founder
      ? [userId]
      : [],
  );
}

async function completeResyncIfPartial(entered: Parameters<typeof completeResync>[1]): Promise<void> {
  const step = await nextResyncStep(sidecar.ctx, entered.target);
  if (step.kind !== "completed") await completeResync(scene, entered);
}
