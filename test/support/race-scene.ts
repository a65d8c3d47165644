import { expect, onTestFinished } from "vitest";
import type { EventId, RoomId, UserId } from "../../src/matrix/identifiers.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import { joinRoom } from "../../src/rooms/join/join-room.ts";
import { nextResyncStep, type ResyncStep, type ResyncTarget } from "../../src/rooms/resync/resync-next-step.ts";
import { openDatabase } from "../../src/storage/database.ts";
import { countPartialEvents, partialRoom } from "../../src/storage/partial-state.ts";
import { stateKeyOf } from "../../src/matrix/state.ts";
import type { HostedRoom } from "../resident/hosted-room.ts";
import { driveResync } from "./drive-resync.ts";
import type { Scene } from "./scene.ts";

/** A room that alice has joined partially, and the resync that is to repair it. */
export interface EnteredRoom {
  readonly room: HostedRoom;
  readonly roomId: RoomId;
  readonly target: ResyncTarget;
}

let members = 40;

export function hostRoom({ resident }: Scene): HostedRoom {
  // Of another size each time: rooms of the same parameters have the same id.
  members += 1;
  return resident.hostRoom({ members, servers: 5, seed: resident.world.seed });
}

export async function enterRoom(scene: Scene): Promise<EnteredRoom> {
  const room = hostRoom(scene);
  const { roomId } = room;
  const joined = await join(scene, scene.sidecar.ctx, room);
  return { room, roomId, target: { roomId, joinEventId: joined.eventId } };
}

export async function join(
  { resident, sidecar }: Scene,
  ctx: RoomsContext,
  room: HostedRoom,
  userId: UserId = sidecar.userId,
): ReturnType<typeof joinRoom> {
  return joinRoom(ctx, { userId, roomId: room.roomId, via: [resident.serverName] });
}

export function ourUser({ sidecar }: Scene, name: string): UserId {
  return `@${name}:${sidecar.serverName}`;
}

/** What another process of the same sidecar works with: its own connections to the same database. */
export function otherProcess(ctx: RoomsContext): RoomsContext {
  const database = openDatabase(ctx.database.url, { applicationName: "another process" });
  onTestFinished(() => database.close());
  return { ...ctx, database };
}

/** The resync up to the step of this kind, which is left to the test. */
export async function resyncUpTo<Kind extends ResyncStep["kind"]>(
  ctx: RoomsContext,
  target: ResyncTarget,
  kind: Kind,
): Promise<Extract<ResyncStep, { readonly kind: Kind }>> {
  let found: ResyncStep | undefined;
  await driveResync(ctx, target.roomId, target.joinEventId, (step) => {
    if (step.kind === kind) found = step;
    return step.kind === kind;
  });
  if (found === undefined) throw new Error(`the resync has no step ${kind}`);
  return found as Extract<ResyncStep, { readonly kind: Kind }>;
}

/** The room is whole, nothing of it is left partial, and its state is the resident's. */
export async function expectWhole(scene: Scene, { room, roomId }: EnteredRoom): Promise<void> {
  const { pool } = scene.database;
  expect(await partialRoom(pool, roomId)).toBeUndefined();
  expect(await countPartialEvents(pool, roomId)).toBe(0);
  expect(await scene.sidecar.currentState(roomId)).toEqual(scene.resident.fullState(room));
}

/** Ends the resync, whatever is left to do. */
export async function completeResync(scene: Scene, entered: EnteredRoom): Promise<void> {
  const { roomId, joinEventId } = entered.target;
  expect(await driveResync(scene.sidecar.ctx, roomId, joinEventId)).toBe("completed");
  await expectWhole(scene, entered);
}

export async function memberEventOf(scene: Scene, roomId: RoomId, userId: UserId): Promise<EventId | undefined> {
  return (await scene.sidecar.currentState(roomId)).get(stateKeyOf("m.room.member", userId));
}

/** The resync's target of whichever join the room is partial for. */
export async function resyncWanted(scene: Scene, roomId: RoomId): Promise<ResyncTarget> {
  const row = await partialRoom(scene.database.pool, roomId);
  if (row?.joinEventId == null) throw new Error(`${roomId} is not partial`);
  return { roomId, joinEventId: row.joinEventId };
}

export async function stepAfter(scene: Scene, target: ResyncTarget): Promise<ResyncStep["kind"]> {
  return (await nextResyncStep(scene.sidecar.ctx, target)).kind;
}
