import { LRUCache } from "lru-cache";
import type { ServerName } from "../matrix/identifiers.ts";
import type { Database } from "../storage/database.ts";
import { clearBackOff, loadBackOff, storeBackOff } from "../storage/destinations.ts";
import type { DestinationBackOff } from "../storage/destinations.ts";
import { timeLeft } from "../storage/time-left.ts";
import { FederationFailure } from "./failures.ts";

/** What a request is for, as far as back-off tells it apart. */
export type RequestPurpose = "transaction" | "keys" | "other";

/** Which servers are left alone for a while, since they failed; shared by all processes through the database. */
export interface Backoff {
  /**
   * Keys are asked for while transactions alone have failed: a notary that takes none of ours may still be the only one
   * that knows the keys of a room's events.
   *
   * @throws FederationFailure of kind `backing-off` while the server is left alone
   */
  check(server: ServerName, purpose: RequestPurpose): Promise<void>;
  failed(failure: FederationFailure, purpose: RequestPurpose): Promise<void>;
  /** That a server gives keys does not show that it takes transactions. */
  succeeded(server: ServerName, purpose: RequestPurpose): Promise<void>;
  /** The server has talked to us, so it may be asked again at once. True if it was being left alone. */
  lift(server: ServerName): Promise<boolean>;
}

export const FIRST_INTERVAL_MS = 30_000;
export const MAX_INTERVAL_MS = 60 * 60_000;
const GROWTH = 2;
/** A server that talks to us all the time needs no look into the database each time. */
const LIFT_AT_MOST_EVERY_MS = 5_000;

/** Milliseconds for which a server is still left alone. */
export function backOffLeft({ retryAt, retryIntervalMs }: DestinationBackOff, now: number): number {
  return timeLeft(retryAt, retryIntervalMs, now);
}

interface BackOffStep {
  readonly purpose: RequestPurpose;
  readonly now: number;
}

/**
 * What one more failure makes of a server's back-off. Several requests that were under way together count as one
 * failure: the interval grows only if the last one was over.
 */
export function nextBackOff(
  known: DestinationBackOff | undefined,
  failure: FederationFailure,
  { purpose, now }: BackOffStep,
): DestinationBackOff {
  const { server: serverName, reason: lastError } = failure;
  const sendsOnly = purpose === "transaction" && (known === undefined || known.sendsOnly === true);
  if (known !== undefined && backOffLeft(known, now) > 0) {
    // The first other request that fails must not wait for as long as many transactions in vain have earned.
    const widened = known.sendsOnly === true && !sendsOnly;
    const retryAt = widened ? Math.min(known.retryAt, now + FIRST_INTERVAL_MS) : known.retryAt;
    return { ...known, retryAt, lastError, sendsOnly };
  }
  const grown = known === undefined ? FIRST_INTERVAL_MS : known.retryIntervalMs * GROWTH;
  const retryIntervalMs = Math.min(Math.max(grown, failure.retryAfterMs ?? 0), MAX_INTERVAL_MS);
  const failingSince = known?.failingSince ?? now;
  return { serverName, failingSince, retryAt: now + retryIntervalMs, retryIntervalMs, lastError, sendsOnly };
}

export function createBackoff(database: Database, now: () => number): Backoff {
  const { pool } = database;
  const liftedAt = new LRUCache<ServerName, number>({ max: 10_000 });
  /** Servers that this process believes to be failing: the others' successes need no write. */
  const failing = new LRUCache<ServerName, true>({ max: 10_000 });

  return {
    async check(server, purpose) {
      const known = await loadBackOff(pool, server);
      if (known === undefined) return;
      failing.set(server, true);
      if (purpose === "keys" && known.sendsOnly === true) return;
      const retryAfterMs = backOffLeft(known, now());
      if (retryAfterMs === 0) return;
      const reason = `it is left alone for ${Math.ceil(retryAfterMs / 1000)} s more, since it failed: ${known.lastError}`;
      throw new FederationFailure({ kind: "backing-off", server, reason, retryAfterMs });
    },
    async failed(failure, purpose) {
      const { server } = failure;
      const known = await loadBackOff(pool, server);
      await storeBackOff(pool, nextBackOff(known, failure, { purpose, now: now() }));
      failing.set(server, true);
      liftedAt.delete(server);
    },
    async succeeded(server, purpose) {
      if (!failing.has(server)) return;
      const ended = await clearBackOff(pool, server, purpose === "keys");
      if (ended || purpose !== "keys") failing.delete(server);
    },
    async lift(server) {
      const last = liftedAt.get(server);
      if (last !== undefined && timeLeft(last + LIFT_AT_MOST_EVERY_MS, LIFT_AT_MOST_EVERY_MS, now()) > 0) return false;
      liftedAt.set(server, now());
      failing.delete(server);
      return clearBackOff(pool, server);
    },
  };
}
