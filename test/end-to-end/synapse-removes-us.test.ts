import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { RoomId, UserId } from "../../src/matrix/identifiers.ts";
import { joinRoom } from "../../src/rooms/join/join-room.ts";
import { leaveRoom } from "../../src/rooms/join/leave-room.ts";
import { purgeRoomOfUsers } from "../../src/rooms/join/purge-room.ts";
import { loadEvent } from "../../src/storage/events.ts";
import { membershipOf } from "../../src/storage/memberships.ts";
import { openTestDatabase } from "../support/database.ts";
import { driveResync } from "../support/drive-resync.ts";
import { startInProcessSidecar } from "../support/in-process-sidecar.ts";
import { startSynapse } from "../support/synapse/start-synapse.ts";
import {
  changeMember,
  createSynapseRoom,
  joinOnSynapse,
  readState,
  registerUser,
  sendMessage,
  setState,
} from "../support/synapse/synapse-client.ts";

// The sidecar in this process: its rooms stay partial for as long as the test wants it.
const dataDir = await mkdtemp(join(tmpdir(), "fastjoin-synapse-"));
afterAll(() => rm(dataDir, { recursive: true, force: true }));
const synapse = await startSynapse({ dataDir });
afterAll(() => synapse.stop(), 60_000);
const database = await openTestDatabase();
const sidecar = await startInProcessSidecar(database);
afterAll(() => sidecar.close());
const { ctx, userId } = sidecar;
const admin = await registerUser(synapse, "admin");
const moderator = await registerUser(synapse, "moderator");

/** A room with a name, whose moderator has done nothing yet, so that no auth chain of the light answer holds their membership. */
async function enter(): Promise<RoomId> {
  const roomId = await createSynapseRoom(admin, { version: "11", options: { name: "No heroes" } });
  await joinOnSynapse(moderator, roomId);
  const users = { [admin.userId]: 100, [moderator.userId]: 50 };
  await setState(admin, roomId, { type: "m.room.power_levels", content: { users, kick: 50, ban: 50 } });
  const joined = await rejoin(roomId);
  expect(joined.partial).toBe(true);
  expect(await membershipOf(database.pool, roomId, moderator.userId)).toBeUndefined();
  return roomId;
}

const rejoin = (roomId: RoomId) => joinRoom(ctx, { userId, roomId, via: [synapse.serverName] });

async function untilStanding(roomId: RoomId, membership: string): Promise<void> {
  const standing = async () => (await membershipOf(database.pool, roomId, userId))?.membership;
  await expect.poll(standing).toBe(membership);
}

async function untilSynapseSees(roomId: RoomId, member: UserId, membership: string): Promise<void> {
  const seen = async (): Promise<unknown> => {
    const event = (await readState(admin, roomId)).find((one) => one["state_key"] === member);
    return (event?.["content"] as { readonly membership?: string } | undefined)?.membership;
  };
  await expect.poll(seen).toBe(membership);
}

describe("a partial room on a real Synapse", () => {
  it.each([
    ["kick", "leave"],
    ["ban", "ban"],
  ] as const)("that we are removed from by a moderator of whom we know nothing: %s", async (action, membership) => {
    const roomId = await enter();

    await changeMember(moderator, roomId, action, userId);

    await untilStanding(roomId, membership);
    const [wanted] = sidecar.wanted.filter((one) => one.roomId === roomId);
    expect(await driveResync(ctx, roomId, wanted?.joinEventId ?? "$none")).toBe("left");
    if (action === "ban") await expect(rejoin(roomId)).rejects.toMatchObject({ status: 403, errcode: "M_FORBIDDEN" });
    else expect((await rejoin(roomId)).partial).toBe(true);
  });

  it("hears of our user's leave and of the next join, whose resync ends with its own state", async () => {
    const roomId = await enter();
    await leaveRoom(ctx, { userId, roomId });
    await untilSynapseSees(roomId, userId, "leave");
    await sendMessage(admin, roomId, "without you");

    const { eventId } = await rejoin(roomId);

    expect(await driveResync(ctx, roomId, eventId)).toBe("completed");
    const state = await sidecar.currentState(roomId);
    expect(new Set(state.values())).toEqual(new Set((await readState(admin, roomId)).map((one) => one["event_id"])));
    expect(await loadEvent(database.pool, eventId)).toMatchObject({ rejection: null, outlier: false });
  });

  it("hears that our users leave it when it is purged, and lets them in again", async () => {
    const roomId = await enter();
    expect(await purgeRoomOfUsers(ctx, { roomId, by: "root", why: "too large" })).toMatchObject({ left: [userId] });
    await untilSynapseSees(roomId, userId, "leave");
    expect((await rejoin(roomId)).partial).toBe(true);
  });
});
