import { describe, expect, it } from "vitest";
import type { UserId } from "../../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../../src/matrix/state.ts";
import type { RoomsContext } from "../../../../src/rooms/context.ts";
import { joinRoom } from "../../../../src/rooms/join/join-room.ts";
import { finishResync } from "../../../../src/rooms/resync/resync-finish.ts";
import { loadEvent } from "../../../../src/storage/events.ts";
import { isJoinUnderWay } from "../../../../src/storage/joins-under-way.ts";
import { joinedRooms } from "../../../../src/storage/memberships.ts";
import { partialRoom } from "../../../../src/storage/partial-state.ts";
import { loadRoom } from "../../../../src/storage/rooms.ts";
import type { Front } from "../../../resident/front.ts";
import type { HostedRoom } from "../../../resident/hosted-room.ts";
import { AT_ROOM, AT_STREAM, holdAtRequest, holdStream, untilWaiting, type Held } from "../../../support/hold-point.ts";
import { givingUpOnceLetIn } from "../../../support/impatient-join.ts";
import {
  completeResync,
  expectWhole,
  memberEventOf,
  otherProcess,
  ourUser,
  resyncUpTo,
  type EnteredRoom,
} from "../../../support/race-scene.ts";
import { openScene } from "../../../support/scene.ts";
import { eventually } from "../../../support/sidecar-process.ts";

const scene = await openScene({ fronts: 2 });
const { database, resident, sidecar } = scene;
const [first, second] = resident.fronts as [Front, Front];
const bob = ourUser(scene, "bob");

let rooms = 0;
function hostRestricted(): HostedRoom {
  rooms += 1;
  return resident.hostRoom({ members: 20, joinRule: "restricted", label: `restricted ${rooms}` });
}

/** The first server proposes joins for which the second one's user vouches: that one has to complete and sign them. */
function haveTheSecondVouch(room: HostedRoom): () => void {
  const state = resident.fullState(room);
  const named = ["m.room.create", "m.room.power_levels", "m.room.join_rules"].map((type) => stateKeyOf(type, ""));
  const authEvents = [...named, stateKeyOf("m.room.member", second.user)].flatMap((key) => state.get(key) ?? []);
  const content = { membership: "join", join_authorised_via_users_server: second.user };
  const changes = { content, auth_events: authEvents };
  return resident.trouble({ kind: "lie", lie: "template", changes, at: "make_join" }, first);
}

const join = async (ctx: RoomsContext, room: HostedRoom, userId: UserId) =>
  joinRoom(ctx, { userId, roomId: room.roomId, via: [first.serverName] });

interface VouchedJoin extends EnteredRoom {
  readonly side: Held;
  readonly joining: ReturnType<typeof joinRoom>;
}

/** Alice is in the room, whose resync has all but its end before it; bob's vouched join has been answered. */
async function vouchedJoin(): Promise<VouchedJoin> {
  const room = hostRestricted();
  const { roomId } = room;
  const { eventId: joinEventId } = await join(sidecar.ctx, room, sidecar.userId);
  const end = haveTheSecondVouch(room);
  const side = holdAtRequest(sidecar.ctx.federation, "sendJoin", { after: true });
  const joining = join({ ...sidecar.ctx, federation: side.federation }, room, bob);
  await side.reached;
  end();
  const target = { roomId, joinEventId };
  await resyncUpTo(sidecar.ctx, target, "finish");
  return { room, roomId, target, side, joining };
}

/** The user is in the room by the join that the second server's user vouched for. */
async function isInByVoucher({ room, roomId, target }: EnteredRoom): Promise<void> {
  await expectWhole(scene, { room, roomId, target });
  const event = await loadEvent(database.pool, (await memberEventOf(scene, roomId, bob)) ?? "$none");
  expect(event?.pdu.content).toMatchObject({ membership: "join", join_authorised_via_users_server: second.user });
  expect(Object.keys(event?.pdu.signatures ?? {})).toContain(second.serverName);
  expect(await joinedRooms(database.pool, bob)).toContain(roomId);
}

describe("a restricted join for which a third server's user vouches, as the room is declared whole", () => {
  it("is part of it when it comes first", async () => {
    const entered = await vouchedJoin();
    const lock = await holdStream(database);
    entered.side.release();
    await untilWaiting(database, AT_STREAM);
    const finishing = finishResync(otherProcess(sidecar.ctx), entered.target);
    await untilWaiting(database, AT_ROOM);
    await lock.release();
    await entered.joining;
    expect(await finishing).toMatchObject({ kind: "completed" });
    await isInByVoucher(entered);
  });

  it("is judged by the full state when it comes second", async () => {
    const entered = await vouchedJoin();
    const lock = await holdStream(database);
    const finishing = finishResync(otherProcess(sidecar.ctx), entered.target);
    await untilWaiting(database, AT_STREAM);
    entered.side.release();
    await untilWaiting(database, /INSERT INTO rooms/);
    await lock.release();
    expect(await finishing).toMatchObject({ kind: "completed" });
    expect(await entered.joining).toMatchObject({ partial: false });
    await isInByVoucher(entered);
  });

  it("holds where the one who vouched has left meanwhile, who was there when the other server let the user in", async () => {
    const entered = await vouchedJoin();
    const { room, roomId, target } = entered;
    expect(await finishResync(sidecar.ctx, target)).toMatchObject({ kind: "completed" });
    const left = await resident.leave(room, second.user, { origin: second.serverName });
    await eventually(async () =>
      (await loadEvent(database.pool, left.eventId))?.outlier === false ? true : undefined,
    );
    entered.side.release();
    expect(await entered.joining).toMatchObject({ partial: false });
    expect(resident.membership(room, second.user)).toBe("leave");
    await isInByVoucher({ room, roomId, target });
  });
});

describe("a restricted join that is answered after we gave up", () => {
  it("leaves us outside, and a later one needs nobody to vouch", async () => {
    const room = hostRestricted();
    const { roomId } = room;
    const end = haveTheSecondVouch(room);
    const letGo = resident.trouble({ kind: "hold", at: "send_join" }, second);
    const impatient = givingUpOnceLetIn(
      sidecar.ctx,
      second.serverName,
      () => resident.membership(room, bob) === "join",
    );
    await expect(join(impatient, room, bob)).rejects.toMatchObject({ status: 502 });
    letGo();
    end();
    expect(resident.membership(room, bob)).toBe("join");
    expect(await loadRoom(database.pool, roomId)).toBeUndefined();
    expect(await partialRoom(database.pool, roomId)).toBeUndefined();
    expect(await isJoinUnderWay(database.pool, roomId)).toBe(false);

    const { eventId } = await join(sidecar.ctx, room, bob);

    await completeResync(scene, { room, roomId, target: { roomId, joinEventId: eventId } });
    expect(await joinedRooms(database.pool, bob)).toContain(roomId);
  });
});
