import { beforeEach, describe, expect, it } from "vitest";
import type { EventId, UserId } from "../../../src/matrix/identifiers.ts";
import { stateKeyOf } from "../../../src/matrix/state.ts";
import { joinRoom } from "../../../src/rooms/join/join-room.ts";
import { loadEvent } from "../../../src/storage/events.ts";
import { forwardExtremities } from "../../../src/storage/rooms.ts";
import { unPartialStatedEvents } from "../../../src/storage/streams.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { openScene } from "../../support/scene.ts";
import { driveResync } from "../../support/drive-resync.ts";

const { database, resident, sidecar } = await openScene();

const MALLORY: UserId = "@mallory:server-001.rooms.test";
const VICTIM: UserId = "@victim:server-002.rooms.test";

/** A room from which a moderator was banned before we joined: with members omitted, we can't see the ban. */
interface RoomWithHiddenBan {
  readonly room: HostedRoom;
  readonly joinEventId: EventId;
  /** What the banned moderator can still name as auth events: the state when it was joined. */
  readonly stale: readonly EventId[];
}

let members = 70;
let scene: RoomWithHiddenBan;

async function enterRoomWithHiddenBan(): Promise<RoomWithHiddenBan> {
  members += 1;
  const room = resident.hostRoom({ members });
  const quiet = { push: false };
  await resident.join(room, VICTIM, quiet);
  const { eventId: malloryJoined } = await resident.join(room, MALLORY, quiet);
  const content = { users: { [resident.founder]: 100, [MALLORY]: 50 }, kick: 50, ban: 50 };
  const { eventId: levels } = await resident.sendState(room, { type: "m.room.power_levels", content }, quiet);
  const create = resident.fullState(room).get(stateKeyOf("m.room.create", "")) as EventId;
  await resident.ban(room, MALLORY, quiet);
  const joined = await joinRoom(sidecar.ctx, {
    userId: sidecar.userId,
    roomId: room.roomId,
    via: [resident.serverName],
  });
  return { room, joinEventId: joined.eventId, stale: [create, levels, malloryJoined] };
}

async function rejectionOf(eventId: EventId): Promise<string | null | undefined> {
  return (await loadEvent(database.pool, eventId))?.rejection;
}

beforeEach(async () => {
  scene = await enterRoomWithHiddenBan();
});

describe("the resync's re-authorization", () => {
  it("takes away an event that was accepted on partial state and is wrong by the full one", async () => {
    const { room, joinEventId, stale } = scene;
    const wrong = { authEvents: stale, evenIfRejected: true };
    const { eventId } = await resident.sendMessage(room, MALLORY, "I am not banned", wrong);
    expect(await rejectionOf(eventId)).toBeNull();

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await rejectionOf(eventId)).toMatch(/^sender\.not-joined/);
    expect(await forwardExtremities(database.pool, room.roomId)).toEqual([joinEventId]);
    const changes = await unPartialStatedEvents(database.pool, { from: 0n, to: 10n ** 9n });
    expect(changes).toContainEqual(expect.objectContaining({ eventId, rejectionStatusChanged: true }));
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("brings back an event that was refused only for another that was wrong", async () => {
    const { room, joinEventId, stale } = scene;
    const victimJoined = resident.fullState(room).get(stateKeyOf("m.room.member", VICTIM)) as EventId;
    const ban = await resident.send(
      room,
      { sender: MALLORY, type: "m.room.member", stateKey: VICTIM, content: { membership: "ban" } },
      { authEvents: [...stale, victimJoined], evenIfRejected: true },
    );
    expect(await rejectionOf(ban.eventId)).toBeNull();
    const { eventId } = await resident.sendMessage(room, VICTIM, "I am not banned", { prevEvents: [ban.eventId] });
    expect(await rejectionOf(eventId)).not.toBeNull();

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await rejectionOf(ban.eventId)).not.toBeNull();
    expect(await rejectionOf(eventId)).toBeNull();
    expect(await forwardExtremities(database.pool, room.roomId)).toContain(eventId);
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("leaves a rejected event rejected", async () => {
    const { room, joinEventId } = scene;
    const stranger: UserId = "@stranger:server-003.rooms.test";
    const { eventId } = await resident.sendMessage(room, stranger, "let me in", { evenIfRejected: true });
    const before = await rejectionOf(eventId);
    expect(before).not.toBeNull();

    await driveResync(sidecar.ctx, room.roomId, joinEventId);

    expect(await rejectionOf(eventId)).toBe(before);
    const changes = await unPartialStatedEvents(database.pool, { from: 0n, to: 10n ** 9n });
    expect(changes).toContainEqual(expect.objectContaining({ eventId, rejectionStatusChanged: false }));
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });

  it("lets a ban that we know win over the auth events that its target claims", async () => {
    const { room, joinEventId } = scene;
    const create = resident.fullState(room).get(stateKeyOf("m.room.create", "")) as EventId;
    const levels = resident.fullState(room).get(stateKeyOf("m.room.power_levels", "")) as EventId;
    const victimJoined = resident.fullState(room).get(stateKeyOf("m.room.member", VICTIM)) as EventId;
    await resident.ban(room, VICTIM);
    const { eventId } = await resident.sendMessage(room, VICTIM, "what ban?", {
      authEvents: [create, levels, victimJoined],
      evenIfRejected: true,
    });

    expect(await rejectionOf(eventId)).toMatch(/member|join/);
    await driveResync(sidecar.ctx, room.roomId, joinEventId);
    expect(await rejectionOf(eventId)).not.toBeNull();
    expect(await sidecar.currentState(room.roomId)).toEqual(resident.fullState(room));
  });
});
