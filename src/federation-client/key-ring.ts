import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import type { KeyLookup } from "../matrix/signatures.ts";

/** Supplies other servers' verify keys; whether a key was valid for an event is for src/matrix/signatures.ts to say. */
export interface KeyRing {
  /**
   * The wanted keys, as far as they can be had: from memory, the database, the servers themselves or notaries. A server
   * that can't be asked leaves a hole in the lookup, never an error.
   *
   * @param wanted key ids by server; all of them are fetched at once
   * @param atTs a time (ms) at which the keys should be valid: a cached key that ran out before it is asked for again
   */
  keysFor(wanted: ReadonlyMap<ServerName, ReadonlySet<KeyId>>, atTs?: number): Promise<KeyLookup>;
}
