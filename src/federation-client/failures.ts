import type { ServerName } from "../matrix/identifiers.ts";

/**
 * Why a request to another server gave no answer that can be used:
 * - `unreachable`: not found, no connection, certificate refused, address on the blocklist, connection lost;
 * - `timeout`: no answer, or not all of it, in time;
 * - `refused`: an HTTP status that is not 2xx; `status` and, where the body held one, `errcode` say which;
 * - `bad-response`: an answer that is not what the endpoint promises (not JSON, too large, cut off, badly signed);
 * - `backing-off`: not asked, since it failed lately; `retryAfterMs` says for how long.
 */
export type FederationFailureKind = "unreachable" | "timeout" | "refused" | "bad-response" | "backing-off";

interface FederationFailureDetails {
  readonly kind: FederationFailureKind;
  readonly server: ServerName;
  /** The cause in words, without the server's name, which the message puts in front. */
  readonly reason: string;
  readonly status?: number | undefined;
  readonly errcode?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly cause?: unknown;
}

/** The only error that a call to another server throws, apart from bugs and from the caller's own abort. */
export class FederationFailure extends Error {
  override readonly name = "FederationFailure";
  readonly kind: FederationFailureKind;
  readonly server: ServerName;
  readonly reason: string;
  readonly status: number | undefined;
  readonly errcode: string | undefined;
  /** How long the server asked us to wait (`retry_after_ms`), or how long our own back-off lasts yet. */
  readonly retryAfterMs: number | undefined;

  constructor(details: FederationFailureDetails) {
    super(`${details.server}: ${details.reason}`, details.cause === undefined ? {} : { cause: details.cause });
    this.kind = details.kind;
    this.server = details.server;
    this.reason = details.reason;
    this.status = details.status;
    this.errcode = details.errcode;
    this.retryAfterMs = details.retryAfterMs;
  }

  /** Stable across releases: `federation.timeout` and so on. */
  get code(): string {
    return `federation.${this.kind}`;
  }
}

/** The refusals that say the server lacks the endpoint, not that it refuses this request. */
export function isUnknownEndpoint(failure: FederationFailure): boolean {
  const unrecognized = failure.errcode === "M_UNRECOGNIZED" || failure.errcode === undefined;
  return (failure.status === 404 || failure.status === 405) && unrecognized;
}

/**
 * Whether the failure says that the server as a whole is in trouble, so that it counts for its back-off; a refusal
 * of one request does not.
 */
export function isServerTrouble(failure: FederationFailure): boolean {
  switch (failure.kind) {
    case "unreachable":
    case "timeout":
      return true;
    case "refused":
      return failure.status === 429 || (failure.status ?? 0) >= 500;
    case "bad-response":
    case "backing-off":
      return false;
  }
}
