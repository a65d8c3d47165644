import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import type { CallOptions, FederationClient } from "./client.ts";
import { FederationFailure } from "./failures.ts";
import { isServerKeys } from "./read-answers.ts";
import { isSelfSigned, isVouchedFor, keySetOf, mergeKeySets } from "./server-key-set.ts";
import type { ServerKeySet } from "./server-key-set.ts";

/** The endpoints of the client that keys are fetched by. */
export type KeyEndpoints = Pick<FederationClient, "serverKeys" | "queryKeys">;

/**
 * A server's keys from itself.
 *
 * @throws FederationFailure, also if the answer is another server's or not signed by a key in it
 */
export async function fetchOwnKeys(
  client: KeyEndpoints,
  server: ServerName,
  options: CallOptions & { readonly now: number },
): Promise<ServerKeySet> {
  const response = await client.serverKeys(server, options);
  if (response.server_name !== server) {
    const reason = `it sent the keys of "${response.server_name}" instead of its own`;
    throw new FederationFailure({ kind: "bad-response", server, reason });
  }
  if (!isSelfSigned(response, options.now)) {
    throw new FederationFailure({ kind: "bad-response", server, reason: "its keys are not signed by one of them" });
  }
  return keySetOf(response, options.now);
}

/** A notary with its own keys, which it signs its answers by. */
export interface Notary {
  readonly name: ServerName;
  readonly keys: ServerKeySet;
}

/**
 * Many servers' keys from a notary. What is not signed by both the server and the notary is passed over.
 *
 * @param wanted key ids by server
 * @param times `now`, and `atTs`: until when the notary should vouch for the keys, milliseconds
 * @throws FederationFailure
 */
export async function fetchKeysFromNotary(
  client: KeyEndpoints,
  notary: Notary,
  wanted: ReadonlyMap<ServerName, ReadonlySet<KeyId>>,
  times: { readonly now: number; readonly atTs: number },
): Promise<ReadonlyMap<ServerName, ServerKeySet>> {
  const criteria = new Map(
    [...wanted].map(([server, keyIds]) => [
      server,
      new Map([...keyIds].map((keyId) => [keyId, { minimumValidUntilTs: times.atTs }])),
    ]),
  );
  const found = new Map<ServerName, ServerKeySet>();
  for (const response of await client.queryKeys(notary.name, criteria)) {
    if (!isServerKeys(response) || !wanted.has(response.server_name)) continue;
    if (!isSelfSigned(response, times.now) || !isVouchedFor(response, notary.name, notary.keys)) continue;
    const server = response.server_name;
    found.set(server, mergeKeySets(found.get(server) ?? new Map(), keySetOf(response, times.now)));
  }
  return found;
}
