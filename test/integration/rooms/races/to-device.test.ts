import { describe, expect, it } from "vitest";
import { openDeviceScene } from "../../../support/device-scene.ts";
import { AT_STREAM, holdStream, untilWaiting } from "../../../support/hold-point.ts";
import { PASSWORD } from "../../../support/loopback-client.ts";
import type { TestClient } from "../../../support/loopback-client.ts";

const { database, aUser, tell, fronts, api } = await openDeviceScene();
const [, second] = fronts;

/** A user with a device that messages come to and another that logs it out. */
async function twoDevices(): Promise<{ readonly keeps: TestClient; readonly goes: TestClient }> {
  const keeps = await aUser();
  const goes = await api.login(keeps.userId.slice(1).split(":")[0] ?? "");
  return { keeps, goes };
}

async function send({ userId, deviceId }: TestClient): Promise<void> {
  const messages = { [userId]: { [deviceId]: { text: "hello" } } };
  const content = { sender: second.user, type: "org.example.note", message_id: deviceId, messages };
  await tell(second, "m.direct_to_device", content);
}

async function logOut(by: TestClient, { userId, deviceId }: TestClient): Promise<void> {
  const auth = { type: "m.login.password", identifier: { type: "m.id.user", user: userId }, password: PASSWORD };
  await by.ok("DELETE", `devices/${deviceId}`, { body: { auth } });
}

async function waitingFor({ userId, deviceId }: TestClient): Promise<number> {
  const values = [userId, deviceId];
  const kept = await database.pool.query(
    `SELECT 1 FROM to_device_messages WHERE user_id = $1 AND device_id = $2`,
    values,
  );
  return kept.rows.length;
}

describe("a message to a device that is logged out at the same time", () => {
  it("goes with it where the message was first", async () => {
    const { keeps, goes } = await twoDevices();
    const lock = await holdStream(database);
    const sending = send(goes);
    await untilWaiting(database, AT_STREAM, 1);
    const leaving = logOut(keeps, goes);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await Promise.all([sending, leaving]);
    expect(await waitingFor(goes)).toBe(0);
  });

  it("is dropped where the device was first", async () => {
    const { keeps, goes } = await twoDevices();
    const lock = await holdStream(database);
    const leaving = logOut(keeps, goes);
    await untilWaiting(database, AT_STREAM, 1);
    const sending = send(goes);
    await untilWaiting(database, AT_STREAM, 2);
    await lock.release();
    await Promise.all([sending, leaving]);
    expect(await waitingFor(goes)).toBe(0);
  });
});

describe("sending and logging out at the same time", () => {
  it("end both, whoever comes first", async () => {
    const { keeps, goes } = await twoDevices();
    const lock = await holdStream(database);
    const messages = { [keeps.userId]: { [keeps.deviceId]: { text: "last words" } } };
    const sending = goes.call("PUT", "sendToDevice/org.example.note/1", { body: { messages } });
    await untilWaiting(database, AT_STREAM, 1);
    const leaving = logOut(keeps, goes);
    await untilWaiting(database, /DELETE FROM devices/, 1);
    await lock.release();
    expect((await sending).status).toBe(200);
    await leaving;
    expect(await waitingFor(keeps)).toBe(1);
  });
});
