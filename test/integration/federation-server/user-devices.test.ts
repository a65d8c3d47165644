import { describe, expect, it } from "vitest";
import { openTestDatabase } from "../../support/database.ts";
import { crossSigningKeyOf, deviceKeysOf, oneTimeKeys } from "../../support/device-keys.ts";
import { startLoopbackClientApi } from "../../support/loopback-client.ts";
import { startLoopbackFederation } from "../../support/loopback-federation.ts";

const database = await openTestDatabase();
const api = await startLoopbackClientApi(database);
const federation = await startLoopbackFederation(api.ctx);
const them = await federation.remote("them.example");
const alice = await api.register("alice");
const master = crossSigningKeyOf(alice.userId, "master", "M");
const selfSigning = crossSigningKeyOf(alice.userId, "self_signing", "S");
const userSigning = crossSigningKeyOf(alice.userId, "user_signing", "U");
await alice.ok("PUT", `devices/${alice.deviceId}`, { body: { display_name: "Private name" } });
await alice.ok("POST", "keys/device_signing/upload", {
  body: { master_key: master, self_signing_key: selfSigning, user_signing_key: userSigning },
});
await alice.ok("POST", "keys/upload", {
  body: { device_keys: deviceKeysOf(alice), one_time_keys: oneTimeKeys("A"), fallback_keys: oneTimeKeys("F") },
});
const PHONE = await api.login("alice", "PHONE");
await PHONE.ok("POST", "keys/upload", { body: { device_keys: deviceKeysOf(PHONE) } });
await api.login("alice", "WITHOUT_KEYS");

const path = (userId: string): string => `/_matrix/federation/v1/user/devices/${encodeURIComponent(userId)}`;

describe("GET user/devices", () => {
  it("gives the devices with keys, the public cross-signing keys and the last update's id", async () => {
    const { status, body } = await them.ask("GET", path(alice.userId));
    expect(status).toBe(200);
    const { rows } = await database.pool.query(
      `SELECT max(stream_id)::integer AS newest FROM local_device_changes WHERE device_id IS NOT NULL`,
    );
    const devices = [alice, PHONE].map((client) => ({ device_id: client.deviceId, keys: deviceKeysOf(client) }));
    expect(body).toEqual({
      user_id: alice.userId,
      stream_id: rows[0].newest,
      devices: devices.toSorted((one, other) => (one.device_id < other.device_id ? -1 : 1)),
      master_key: master,
      self_signing_key: selfSigning,
    });
  });

  it.each(["@nobody:us.example", "@alice:them.example"])("knows nothing of %s", async (userId) => {
    expect(await them.ask("GET", path(userId))).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
  });
});

describe("POST user/keys/query", () => {
  it("gives the devices that are asked for, without what is private", async () => {
    const asked = { [alice.userId]: ["PHONE"], "@bob:them.example": [] };
    const { status, body } = await them.ask("POST", "/_matrix/federation/v1/user/keys/query", { device_keys: asked });
    expect(status).toBe(200);
    expect(body).toEqual({
      device_keys: { [alice.userId]: { PHONE: deviceKeysOf(PHONE) } },
      master_keys: { [alice.userId]: master },
      self_signing_keys: { [alice.userId]: selfSigning },
    });
  });

  it.each([{}, { device_keys: [] }, { device_keys: { alice: [] } }, { device_keys: { "@a:b": "all" } }])(
    "refuses %j",
    async (body) => {
      const answer = await them.ask("POST", "/_matrix/federation/v1/user/keys/query", body);
      expect(answer).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    },
  );
});

describe("POST user/keys/claim", () => {
  it("hands a one-time key out once, and then the fallback key", async () => {
    const body = { one_time_keys: { [alice.userId]: { [alice.deviceId]: "signed_curve25519", NONE: "x" } } };
    const claim = async (): Promise<unknown> =>
      (await them.ask("POST", "/_matrix/federation/v1/user/keys/claim", body)).body;
    expect(await claim()).toEqual({ one_time_keys: { [alice.userId]: { [alice.deviceId]: oneTimeKeys("A") } } });
    expect(await claim()).toEqual({ one_time_keys: { [alice.userId]: { [alice.deviceId]: oneTimeKeys("F") } } });
  });

  it("refuses what is no claim", async () => {
    const body = { one_time_keys: { [alice.userId]: ["signed_curve25519"] } };
    const answer = await them.ask("POST", "/_matrix/federation/v1/user/keys/claim", body);
    expect(answer).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
  });
});
