import { isJsonObject, type JsonObject } from "../../matrix/json.ts";
import type { KeySignature } from "../../storage/cross-signing-keys.ts";

/**
 * The key with signatures that were uploaded apart from it. What their owner has uploaded with the key stays, but for
 * what the same key has signed anew.
 */
export function withSignatures(
  key: JsonObject,
  added: readonly Pick<KeySignature, "signerUserId" | "signerKeyId" | "signature">[],
): JsonObject {
  if (added.length === 0) return key;
  const held = key["signatures"];
  const signatures: Record<string, JsonObject> = {};
  for (const [signer, ofSigner] of Object.entries(isJsonObject(held) ? held : {})) {
    if (isJsonObject(ofSigner)) signatures[signer] = ofSigner;
  }
  for (const { signerUserId, signerKeyId, signature } of added) {
    signatures[signerUserId] = { ...signatures[signerUserId], [signerKeyId]: signature };
  }
  return { ...key, signatures };
}

/**
 * The public key by which signatures name a cross-signing key: what stands behind the algorithm.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#key-and-signature-security
 */
export function publicKeyOf(key: JsonObject): string | undefined {
  const keys = key["keys"];
  const [name] = Object.keys(isJsonObject(keys) ? keys : {});
  const colon = name?.indexOf(":") ?? -1;
  return colon < 0 ? undefined : name?.slice(colon + 1);
}
