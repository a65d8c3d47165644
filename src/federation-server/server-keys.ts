import { signJson } from "../matrix/signatures.ts";
import { openEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";

/** Others ask again at half of this; a key that was stolen is believed in for no longer. */
const KEY_VALIDITY_MS = 24 * 60 * 60 * 1000;

/** @see https://spec.matrix.org/v1.19/server-server-api/#publishing-keys */
export const serverKeysEndpoints: readonly Endpoint[] = [
  openEndpoint("GET /_matrix/key/v2/server", async ({ serverName, signingKey, now }) => {
    const key = Buffer.from(signingKey.publicKey).toString("base64").replaceAll("=", "");
    const keys = {
      server_name: serverName,
      verify_keys: { [signingKey.keyId]: { key } },
      old_verify_keys: {},
      valid_until_ts: now() + KEY_VALIDITY_MS,
    };
    return signJson(keys, serverName, signingKey);
  }),
];
