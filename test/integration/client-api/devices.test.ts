import { describe, expect, it } from "vitest";
import { createSession, createUser } from "../../../src/storage/accounts.ts";
import { openTestDatabase } from "../../support/database.ts";
import { crossSigningKeyOf, deviceKeysOf } from "../../support/device-keys.ts";
import { PASSWORD, startLoopbackClientApi } from "../../support/loopback-client.ts";
import type { Body, TestClient } from "../../support/loopback-client.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);
const alice = await api.register("alice");

const proof = (client: TestClient, password = PASSWORD, session?: string): Body => ({
  type: "m.login.password",
  identifier: { type: "m.id.user", user: client.userId },
  password,
  session,
});

describe("devices", () => {
  it("are listed, and named by their user", async () => {
    await api.login("alice", "PHONE");
    await alice.ok("PUT", "devices/PHONE", { body: { display_name: "My phone" } });
    const { devices } = await alice.ok("GET", "devices");
    expect(devices).toContainEqual({ device_id: "PHONE", display_name: "My phone" });
    expect(devices).toContainEqual({ device_id: alice.deviceId });
    expect(await alice.ok("GET", "devices/PHONE")).toEqual({ device_id: "PHONE", display_name: "My phone" });
  });

  it("are nobody else's business", async () => {
    await api.login("alice", "TABLET");
    const bob = await api.register("nosy");
    for (const [method, body] of [
      ["GET", undefined],
      ["PUT", { display_name: "Mine now" }],
    ] as const) {
      const { status, body: answer } = await bob.call(method, "devices/TABLET", body === undefined ? {} : { body });
      expect([status, answer.errcode]).toEqual([404, "M_NOT_FOUND"]);
    }
    await bob.ok("DELETE", "devices/TABLET", { body: { auth: proof(bob) } });
    expect(await alice.ok("GET", "devices/TABLET")).toEqual({ device_id: "TABLET" });
  });

  it("are deleted only with the user's own password", async () => {
    const lost = await api.login("alice", "LOST");
    const refused = await alice.call("DELETE", "devices/LOST");
    expect(refused.status).toBe(401);
    expect(refused.body).toMatchObject({ flows: [{ stages: ["m.login.password"] }], params: {}, completed: [] });
    const { session } = refused.body;

    const wrong = await alice.call("DELETE", "devices/LOST", { body: { auth: proof(alice, "guess", session) } });
    expect(wrong.status).toBe(401);
    expect(wrong.body).toMatchObject({ errcode: "M_FORBIDDEN", session, flows: [{ stages: ["m.login.password"] }] });
    const bob = await api.register("mallory");
    const others = await alice.call("DELETE", "devices/LOST", { body: { auth: proof(bob, PASSWORD, session) } });
    expect(others.status).toBe(401);
    await lost.ok("GET", "account/whoami");

    await alice.ok("DELETE", "devices/LOST", { body: { auth: proof(alice, PASSWORD, session) } });
    expect((await lost.call("GET", "account/whoami")).status).toBe(401);
    expect((await alice.call("GET", "devices/LOST")).status).toBe(404);
  });

  it("are deleted many at once", async () => {
    await api.login("alice", "ONE");
    await api.login("alice", "TWO");
    expect((await alice.call("POST", "delete_devices", { body: { devices: ["ONE", "TWO"] } })).status).toBe(401);
    await alice.ok("POST", "delete_devices", { body: { devices: ["ONE", "TWO", "NONE"], auth: proof(alice) } });
    const { devices } = await alice.ok("GET", "devices");
    expect(devices.map((device: Body) => device.device_id)).not.toContain("ONE");
    expect(devices.map((device: Body) => device.device_id)).not.toContain("TWO");
  });

  it("of an account without a password are deleted by the access token alone", async () => {
    await createUser(database, "@robot:us.example");
    const session = { userId: "@robot:us.example", deviceId: "ARM" } as const;
    const token = await createSession(database, session);
    const deleted = await fetch(`${api.url}/_matrix/client/v3/devices/ARM`, {
      method: "DELETE",
      headers: { authorization: `Bearer ${token}` },
    });
    expect(deleted.status).toBe(200);
  });
});

describe("cross-signing keys", () => {
  it("are replaced only with the password", async () => {
    const carol = await api.register("carol");
    const first = { master_key: crossSigningKeyOf(carol.userId, "master", "M1") };
    await carol.ok("POST", "keys/device_signing/upload", { body: first });
    await carol.ok("POST", "keys/device_signing/upload", { body: first });

    const second = { master_key: crossSigningKeyOf(carol.userId, "master", "M2") };
    const refused = await carol.call("POST", "keys/device_signing/upload", { body: second });
    expect([refused.status, refused.body.flows]).toEqual([401, [{ stages: ["m.login.password"] }]]);
    await carol.ok("POST", "keys/device_signing/upload", { body: { ...second, auth: proof(carol) } });

    const { master_keys: keys } = await carol.ok("POST", "keys/query", {
      body: { device_keys: { [carol.userId]: [] } },
    });
    expect(keys).toEqual({ [carol.userId]: second.master_key });
  });

  it("are refused where they are another user's, for another use, or without a master key", async () => {
    const dave = await api.register("dave");
    const upload = async (body: Body): Promise<Body> => {
      const { status, body: answer } = await dave.call("POST", "keys/device_signing/upload", { body });
      return [status, answer.errcode];
    };
    const invalid = [400, "M_INVALID_PARAM"];
    expect(await upload({ master_key: crossSigningKeyOf(alice.userId, "master", "M") })).toEqual(invalid);
    expect(await upload({ master_key: crossSigningKeyOf(dave.userId, "self_signing", "M") })).toEqual(invalid);
    const alone = { self_signing_key: crossSigningKeyOf(dave.userId, "self_signing", "S") };
    expect(await upload(alone)).toEqual([400, "M_MISSING_PARAM"]);
  });

  it("are shown to others without the user-signing key, and sign devices for everyone", async () => {
    const [erin, frank] = [await api.register("erin"), await api.register("frank")];
    const mine = { device_keys: { [erin.userId]: [] } };
    await erin.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(erin) } });
    const keys = {
      master_key: crossSigningKeyOf(erin.userId, "master", "EM"),
      self_signing_key: crossSigningKeyOf(erin.userId, "self_signing", "ES"),
      user_signing_key: crossSigningKeyOf(erin.userId, "user_signing", "EU"),
    };
    await erin.ok("POST", "keys/device_signing/upload", { body: keys });
    const signed = { ...deviceKeysOf(erin), signatures: { [erin.userId]: { "ed25519:ES": "by self-signing" } } };
    const uploaded = await erin.ok("POST", "keys/signatures/upload", {
      body: { [erin.userId]: { [erin.deviceId]: signed, NOWHERE: signed } },
    });
    expect(uploaded.failures[erin.userId]).toMatchObject({ NOWHERE: { errcode: "M_NOT_FOUND" } });

    const shown = await frank.ok("POST", "keys/query", { body: mine });
    expect(shown.device_keys[erin.userId][erin.deviceId].signatures[erin.userId]).toEqual({
      [`ed25519:${erin.deviceId}`]: "signature-1",
      "ed25519:ES": "by self-signing",
    });
    expect(shown.master_keys[erin.userId]).toEqual(keys.master_key);
    expect(shown.self_signing_keys[erin.userId]).toEqual(keys.self_signing_key);
    expect(shown.user_signing_keys).toEqual({});
    expect((await erin.ok("POST", "keys/query", { body: mine })).user_signing_keys[erin.userId]).toEqual(
      keys.user_signing_key,
    );
  });

  it("sign another user's master key for the signer's eyes only", async () => {
    const [grace, heidi] = [await api.register("grace"), await api.register("heidi")];
    const master = crossSigningKeyOf(heidi.userId, "master", "HM");
    await heidi.ok("POST", "keys/device_signing/upload", { body: { master_key: master } });
    const signed = { ...master, signatures: { [grace.userId]: { "ed25519:GU": "by grace" } } };
    const { failures } = await grace.ok("POST", "keys/signatures/upload", { body: { [heidi.userId]: { HM: signed } } });
    expect(failures).toEqual({});

    const query = { body: { device_keys: { [heidi.userId]: [] } } };
    expect((await grace.ok("POST", "keys/query", query)).master_keys[heidi.userId]).toEqual(signed);
    expect((await heidi.ok("POST", "keys/query", query)).master_keys[heidi.userId]).toEqual(master);
  });
});
