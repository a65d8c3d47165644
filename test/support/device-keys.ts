import type { JsonObject } from "../../src/matrix/json.ts";

/** Keys of a device as a client uploads them; nobody here checks the signatures. */
export function deviceKeysOf(
  { userId, deviceId }: { readonly userId: string; readonly deviceId: string },
  mark = "1",
): JsonObject {
  return {
    user_id: userId,
    device_id: deviceId,
    algorithms: ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
    keys: { [`curve25519:${deviceId}`]: `curve-${mark}`, [`ed25519:${deviceId}`]: `ed-${mark}` },
    signatures: { [userId]: { [`ed25519:${deviceId}`]: `signature-${mark}` } },
  };
}

/** A cross-signing key whose public part is `name`. */
export function crossSigningKeyOf(userId: string, usage: string, name: string): JsonObject {
  return { user_id: userId, usage: [usage], keys: { [`ed25519:${name}`]: name } };
}

export function oneTimeKeys(...names: readonly string[]): Record<string, JsonObject> {
  return Object.fromEntries(names.map((name) => [`signed_curve25519:${name}`, { key: `key-${name}`, signatures: {} }]));
}
