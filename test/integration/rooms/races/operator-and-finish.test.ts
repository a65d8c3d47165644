import { describe, expect, it } from "vitest";
import { dropEvent } from "../../../../src/rooms/resync/drop-event.ts";
import { recordCancelled } from "../../../../src/rooms/resync/resync-cancelled.ts";
import { fetchMissingState } from "../../../../src/rooms/resync/resync-fetch-state.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { repairEvents } from "../../../../src/rooms/resync/resync-repair-events.ts";
import { leaveRoom } from "../../../../src/rooms/join/leave-room.ts";
import { cancelResync, retryResync } from "../../../../src/operator/steer-resync.ts";
import type { OperatorContext } from "../../../../src/operator/context.ts";
import { reconcileResyncs } from "../../../../src/rooms/upkeep/reconcile-resyncs.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { loadResyncControl } from "../../../../src/storage/resync-control.ts";
import { AT_ROOM, AT_STREAM, holdAtStatement, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import { repairAllBut, withHalfAGap } from "../../../support/lacking-scene.ts";
import {
  completeResync,
  enterRoom,
  expectWhole,
  join,
  otherProcess,
  resyncUpTo,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";

const scene = await openScene();
const { database, sidecar } = scene;

const ctx: OperatorContext = {
  ...sidecar.ctx,
  workflows: {
    standing: async () => ({ state: "none" }),
    signalRetry: async () => true,
    signalPreferServer: async () => true,
    link: () => undefined,
  },
};

async function repairedRoom(): Promise<EnteredRoom> {
  const entered = await enterRoom(scene);
  await resyncUpTo(ctx, entered.target, "finish");
  return entered;
}

/** The statement by which whoever notes a wish makes sure that the room is still partial. */
const AT_WISH = /FROM partial_state_rooms WHERE room_id = \$1 FOR KEY SHARE/;

describe("an operator's wish, as the room is declared whole", () => {
  it("is refused when it comes second, and is not left behind", async () => {
    const entered = await repairedRoom();
    const { roomId, target } = entered;
    const other = otherProcess(ctx);
    const end = holdAtStatement(other.database, /DELETE FROM resync_control/);
    const finishing = finishResync({ ...other, database: end.database }, target);
    await end.reached;

    const wish = { roomId, by: "operator", why: "too late" };
    const cancelling = cancelResync(ctx, wish).catch((error: unknown) => error);
    await untilWaiting(database, AT_WISH);
    end.release();

    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await cancelling).toMatchObject({ status: 409, errcode: "FASTJOIN.NOT_PARTIAL" });
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
    await expectWhole(scene, entered);
  });

  it("goes with the room when it comes first", async () => {
    const entered = await repairedRoom();
    const { roomId, target } = entered;
    const wish = { roomId, by: "operator", why: "a moment before", via: undefined };
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(ctx), target);
    await untilWaiting(database, AT_STREAM);

    // Not held up by the lock that finishing holds on the room's partial row.
    expect(await cancelResync(ctx, wish)).toEqual({ workflowTold: true });
    expect(await loadResyncControl(database, roomId)).toMatchObject({ wish: "cancelled" });
    await lock.release();

    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await loadResyncControl(database, roomId)).toBeUndefined();
    await expect(retryResync(ctx, wish)).rejects.toMatchObject({ errcode: "FASTJOIN.NOT_PARTIAL" });
    await expectWhole(scene, entered);
  });
});

describe("dropping an event, as the state before it comes after all", () => {
  it("is refused when the repair came first", async () => {
    const lacking = await withHalfAGap(scene);
    const { roomId, target } = lacking;
    await repairAllBut(scene, lacking);
    lacking.give();
    await fetchMissingState(ctx, { ...target, eventId: lacking.lost, server: scene.resident.serverName });

    const lock = await holdStream(database);
    const repairing = repairEvents(ctx, target, [lacking.lacking]);
    await untilWaiting(database, AT_STREAM);
    const wish = { roomId, eventId: lacking.lacking, by: "operator", why: "too late" };
    const dropping = dropEvent(otherProcess(ctx), wish).catch((error: unknown) => error);
    await untilWaiting(database, AT_ROOM);
    await lock.release();

    expect(await repairing).toMatchObject({ count: 1, rejectionsChanged: 0 });
    expect(await dropping).toMatchObject({ status: 409, errcode: "FASTJOIN.NOT_PARTIAL" });
    await completeResync(scene, lacking);
  });

  it("counts when it comes first: the repair rejects the event, state or not", async () => {
    const lacking = await withHalfAGap(scene);
    const { roomId, target } = lacking;
    await repairAllBut(scene, lacking);
    const other = otherProcess(ctx);
    const noted = holdAtStatement(other.database, /INSERT INTO resync_drops/, { after: true });
    const wish = { roomId, eventId: lacking.lacking, by: "operator", why: "a moment before" };
    const dropping = dropEvent({ ...other, database: noted.database }, wish);
    await noted.reached;
    lacking.give();
    await fetchMissingState(ctx, { ...target, eventId: lacking.lost, server: scene.resident.serverName });
    const repairing = repairEvents(ctx, target, [lacking.lacking]);
    await untilWaiting(database, AT_ROOM);
    noted.release();
    await dropping;

    expect(await repairing).toMatchObject({ count: 1, rejectionsChanged: 1 });
    expect((await loadEvent(database.pool, lacking.lacking))?.rejection).toContain("operator.dropped: ");
  });
});

describe("recordCancelled, as the room is joined again", () => {
  it("does not cancel the resync of the new join", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const other = otherProcess(ctx);
    const look = holdAtStatement(other.database, AT_WISH);
    const recording = recordCancelled({ ...other, database: look.database }, target);
    await look.reached;

    await leaveRoom(ctx, { userId: sidecar.userId, roomId });
    await scene.resident.waitForEvent(
      (event) => event.roomId === roomId && event.pdu.content["membership"] === "leave",
    );
    const again = await join(scene, ctx, room);
    look.release();
    await recording;

    expect(await loadResyncControl(database, roomId)).toBeUndefined();
    sidecar.wanted.length = 0;
    await reconcileResyncs(ctx);
    expect(sidecar.wanted).toContainEqual({ roomId, joinEventId: again.eventId });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: again.eventId } });
  });
});

describe("the reconciler, as a room is joined again", () => {
  it("does not put the old join's resync in the place of the new one's", async () => {
    const { room, roomId, target } = await enterRoom(scene);
    const other = otherProcess(ctx);
    const listed = holdAtStatement(other.database, /FROM partial_state_rooms ORDER BY/, { after: true });
    const reconciling = reconcileResyncs({ ...other, database: listed.database });
    await listed.reached;
    await leaveRoom(ctx, { userId: sidecar.userId, roomId });
    await scene.resident.waitForEvent(
      (event) => event.roomId === roomId && event.pdu.content["membership"] === "leave",
    );
    const again = await join(scene, ctx, room);
    sidecar.wanted.length = 0;
    listed.release();
    await reconciling;

    expect(sidecar.wanted).not.toContainEqual(target);
    await reconcileResyncs(ctx);
    expect(sidecar.wanted).toContainEqual({ roomId, joinEventId: again.eventId });
    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: again.eventId } });
  });
});
