import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { startLoopbackClientApi, type TestClient } from "../../support/loopback-client.ts";

const api = await startLoopbackClientApi(await openTestDatabase());
const WITH_LEFT = JSON.stringify({ room: { include_leave: true } });

const at = (roomId: string, rest: string): string => `rooms/${encodeURIComponent(roomId)}/${rest}`;

let pairs = 0;

/** Two users in a room, in which the first has said something. */
async function twoInARoom(): Promise<{ owner: TestClient; guest: TestClient; roomId: string; name: string }> {
  pairs += 1;
  const name = `guest${pairs}`;
  const [owner, guest] = [await api.register(`owner${pairs}`), await api.register(name)];
  const roomId = await owner.createRoom("11", { preset: "public_chat" });
  await guest.ok("POST", at(roomId, "join"), { body: {} });
  await owner.send(roomId, "hello");
  return { owner, guest, roomId, name };
}

const leave = (user: TestClient, roomId: string) => user.ok("POST", at(roomId, "leave"), { body: {} });
const forget = (user: TestClient, roomId: string) => user.call("POST", at(roomId, "forget"), { body: {} });
const messages = (user: TestClient, roomId: string) =>
  user.call("GET", at(roomId, "messages"), { query: { dir: "b" } });

async function leftRooms(user: TestClient): Promise<readonly string[]> {
  const { rooms } = await user.sync({ filter: WITH_LEFT });
  return Object.keys(rooms?.leave ?? {});
}

describe("forget", () => {
  it("takes a left room out of sight: its history, and a first sync's list of left rooms", async () => {
    const { guest, roomId } = await twoInARoom();
    await leave(guest, roomId);
    expect((await messages(guest, roomId)).status).toBe(200);
    expect(await leftRooms(guest)).toEqual([roomId]);

    expect(await forget(guest, roomId)).toMatchObject({ status: 200, body: {} });

    expect(await messages(guest, roomId)).toMatchObject({ status: 403, body: { errcode: "M_FORBIDDEN" } });
    expect(await leftRooms(guest)).toEqual([]);
  });

  it("is refused while the user is in the room, or invited to it", async () => {
    const { owner, guest, roomId } = await twoInARoom();
    expect(await forget(guest, roomId)).toMatchObject({ status: 400, body: { errcode: "M_UNKNOWN" } });
    await leave(guest, roomId);
    await owner.ok("POST", at(roomId, "invite"), { body: { user_id: guest.userId } });
    expect((await forget(guest, roomId)).status).toBe(400);
  });

  it("is nothing new of a room that the user was never in", async () => {
    const { guest } = await twoInARoom();
    expect((await forget(guest, "!never:example.org")).status).toBe(200);
  });

  it("does not keep the leave from another device that has not asked since", async () => {
    const { guest, roomId, name } = await twoInARoom();
    const other = await api.login(name);
    const { next_batch: since } = await other.sync();
    await leave(guest, roomId);
    await forget(guest, roomId);
    expect(Object.keys((await other.sync({ since })).rooms.leave)).toEqual([roomId]);
  });

  it("ends with the next membership: a banned user may forget, and one who joins again sees all", async () => {
    const { owner, guest, roomId } = await twoInARoom();
    await owner.ok("POST", at(roomId, "ban"), { body: { user_id: guest.userId } });
    expect((await forget(guest, roomId)).status).toBe(200);
    await owner.ok("POST", at(roomId, "unban"), { body: { user_id: guest.userId } });
    await guest.ok("POST", at(roomId, "join"), { body: {} });
    expect((await messages(guest, roomId)).status).toBe(200);
    await leave(guest, roomId);
    expect(await leftRooms(guest)).toEqual([roomId]);
    expect((await messages(guest, roomId)).status).toBe(200);
  });
});
