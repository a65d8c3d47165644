import { randomBytes } from "node:crypto";
import type { JsonObject } from "../../src/matrix/json.ts";
import { signingKeyFromSeed, signJson } from "../../src/matrix/signatures.ts";

/** A device with keys of its own, signed as a real client signs them: other servers check that. */
export interface TestDevice {
  readonly userId: string;
  readonly deviceId: string;
  readonly keys: JsonObject;
  oneTimeKeys(...names: readonly string[]): Record<string, JsonObject>;
}

export function generateDevice(userId: string, deviceId: string): TestDevice {
  const key = signingKeyFromSeed(`ed25519:${deviceId}`, randomBytes(32));
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64").replace(/=+$/, "");
  const keys = {
    user_id: userId,
    device_id: deviceId,
    algorithms: ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
    keys: {
      [`curve25519:${deviceId}`]: base64(randomBytes(32)),
      [`ed25519:${deviceId}`]: base64(key.publicKey),
    },
  };
  const oneTime = new Map<string, JsonObject>();
  return {
    userId,
    deviceId,
    keys: signJson(keys, userId, key),
    oneTimeKeys: (...names) => {
      for (const name of names) {
        if (!oneTime.has(name)) oneTime.set(name, signJson({ key: base64(randomBytes(32)) }, userId, key));
      }
      return Object.fromEntries(names.map((name) => [`signed_curve25519:${name}`, oneTime.get(name) ?? {}]));
    },
  };
}
