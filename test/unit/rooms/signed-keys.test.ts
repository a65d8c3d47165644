import { describe, expect, it } from "vitest";
import { publicKeyOf, withSignatures } from "../../../src/rooms/devices/signed-keys.ts";

const key = { user_id: "@a:b", keys: { "ed25519:D": "k" }, signatures: { "@a:b": { "ed25519:D": "own" } } };

describe("withSignatures", () => {
  it("adds signatures to those that came with the key", () => {
    const added = [
      { signerUserId: "@a:b", signerKeyId: "ed25519:S", signature: "by self-signing" },
      { signerUserId: "@c:d", signerKeyId: "ed25519:U", signature: "by another" },
    ] as const;
    expect(withSignatures(key, added)).toEqual({
      ...key,
      signatures: {
        "@a:b": { "ed25519:D": "own", "ed25519:S": "by self-signing" },
        "@c:d": { "ed25519:U": "by another" },
      },
    });
    expect(key.signatures).toEqual({ "@a:b": { "ed25519:D": "own" } });
  });

  it("replaces one by the same key, and makes do without any", () => {
    const again = [{ signerUserId: "@a:b", signerKeyId: "ed25519:D", signature: "anew" }] as const;
    expect(withSignatures(key, again)["signatures"]).toEqual({ "@a:b": { "ed25519:D": "anew" } });
    expect(withSignatures({ keys: {} }, again)["signatures"]).toEqual({ "@a:b": { "ed25519:D": "anew" } });
    expect(withSignatures(key, [])).toBe(key);
  });
});

describe("publicKeyOf", () => {
  it("is what stands behind the algorithm", () => {
    expect(publicKeyOf({ keys: { "ed25519:base64/+with:colon": "x" } })).toBe("base64/+with:colon");
    expect(publicKeyOf({ keys: { nocolon: "x" } })).toBeUndefined();
    expect(publicKeyOf({ keys: {} })).toBeUndefined();
    expect(publicKeyOf({})).toBeUndefined();
  });
});
