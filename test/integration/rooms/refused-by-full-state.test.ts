import { describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../../src/rooms/join/leave-room.ts";
import { reconcileResyncs } from "../../../src/rooms/upkeep/reconcile-resyncs.ts";
import { fetchMissingState } from "../../../src/rooms/resync/resync-fetch-state.ts";
import { nextResyncStep } from "../../../src/rooms/resync/resync-next-step.ts";
import { repairEvents } from "../../../src/rooms/resync/resync-repair-events.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { joinedRooms } from "../../../src/storage/memberships.ts";
import { partialRoom } from "../../../src/storage/partial-state.ts";
import { loadResyncControl, storeResyncControl } from "../../../src/storage/resync-control.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { currentStreamPosition, localMembershipsAt } from "../../../src/storage/streams.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

const MALLORY: UserId = "@mallory:server-001.rooms.test";
const QUIET = { push: false };
let members = 160;

async function enter(): Promise<{ room: HostedRoom; joinEventId: EventId }> {
  members += 1;
  const room = resident.hostRoom({ members });
  await resident.join(room, MALLORY, QUIET);
  const { userId } = sidecar;
  const joined = await joinRoom(sidecar.ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
  return { room, joinEventId: joined.eventId };
}

/** Before our join another event than the true one stood under this key, as the resident will have it. */
function rewriteThePast(key: { readonly type: string; readonly stateKey: string }, eventId: EventId): void {
  resident.trouble({ kind: "lie", lie: "replace-state", ...key, eventId, at: ["state_ids", "state"] });
}

describe("a join that the full state refuses", () => {
  it("ends as a leave: we are not in the room", async () => {
    const { room, joinEventId } = await enter();
    const closed = await resident.sendState(
      room,
      { type: "m.room.join_rules", content: { join_rule: "invite" } },
      QUIET,
    );
    rewriteThePast({ type: "m.room.join_rules", stateKey: "" }, closed.eventId);

    expect(await driveResync(sidecar.ctx, room.roomId, joinEventId)).toBe("left");

    resident.clearTrouble();
    expect((await loadEvent(database.pool, joinEventId))?.rejection).not.toBeNull();
    expect(await partialRoom(database.pool, room.roomId)).toBeUndefined();
    expect(await joinedRooms(database.pool, sidecar.userId)).not.toContain(room.roomId);
    expect((await sidecar.currentState(room.roomId)).has(stateKeyOf("m.room.member", sidecar.userId))).toBe(false);
    const memberships = await localMembershipsAt(
      database.pool,
      sidecar.userId,
      await currentStreamPosition(database.pool),
    );
    expect(memberships).toContainEqual(expect.objectContaining({ roomId: room.roomId, membership: "leave" }));
  });
});

describe("repairEvents", () => {
  it("takes what it refuses out of the forward extremities at once", async () => {
    const { room, joinEventId } = await enter();
    const wrong = await resident.sendMessage(room, MALLORY, "I am not banned");
    const ban = await resident.ban(room, MALLORY, QUIET);
    rewriteThePast({ type: "m.room.member", stateKey: MALLORY }, ban.eventId);
    expect(await forwardExtremities(database.pool, room.roomId)).toEqual([wrong.eventId]);

    const target = { roomId: room.roomId, joinEventId };
    let step = await nextResyncStep(sidecar.ctx, target);
    for (; step.kind !== "finish"; step = await nextResyncStep(sidecar.ctx, target)) {
      if (step.kind === "repair") await repairEvents(sidecar.ctx, target, step.eventIds);
      else if (step.kind !== "fetch") throw new Error(step.kind);
      else {
        for (const eventId of step.eventIds) {
          await fetchMissingState(sidecar.ctx, { ...target, eventId, server: resident.serverName });
        }
      }
    }

    resident.clearTrouble();
    expect((await loadEvent(database.pool, wrong.eventId))?.rejection).not.toBeNull();
    expect(await forwardExtremities(database.pool, room.roomId)).toEqual([joinEventId]);
  });
});

describe("reconcileResyncs", () => {
  it("clears up a room that was left while its resync was cancelled", async () => {
    const { room } = await enter();
    const { roomId } = room;
    await storeResyncControl(database, { roomId, wish: "cancelled", by: "operator", at: Date.now(), why: "" });
    await reconcileResyncs(sidecar.ctx);
    expect(await partialRoom(database.pool, roomId)).toBeDefined();
    await leaveRoom(sidecar.ctx, { userId: sidecar.userId, roomId });

    await reconcileResyncs(sidecar.ctx);

    expect(await partialRoom(database.pool, roomId)).toBeUndefined();
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
  });
});
