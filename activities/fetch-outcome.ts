import { FederationFailure } from "../src/federation-client/failures.ts";
import type { RoomsContext } from "../src/rooms/context.ts";
import { fetchMissingState, type StateToFetch } from "../src/rooms/resync/resync-fetch-state.ts";
import type { ServerFault } from "../workflows/contract.ts";
import { faultOf } from "./failures.ts";

export type FetchOutcome =
  | { readonly kind: "complete" }
  | { readonly kind: "superseded" }
  | {
      readonly kind: "failed";
      readonly cause: ServerFault;
      readonly detail: string;
      readonly idsLeft?: number;
      readonly retryAfterMs?: number;
    };

/**
 * What became of asking one server for the state at an event, as the workflow and its details tell it. A failure of the
 * server is told in the log too.
 *
 * @throws the caller's abort, and faults of ours
 */
export async function fetchOutcome(ctx: RoomsContext, request: StateToFetch): Promise<FetchOutcome> {
  const outcome = await outcomeOf(ctx, request);
  if (outcome.kind !== "failed") return outcome;
  const { cause, detail } = outcome;
  const told = { roomId: request.roomId, eventId: request.eventId, server: request.server, cause, detail };
  // Who gives what is false needs somebody's eye; who is away does not.
  ctx.logger[cause === "invalid-data" ? "warn" : "info"](told, "a server could not help the resync");
  return outcome;
}

async function outcomeOf(ctx: RoomsContext, request: StateToFetch): Promise<FetchOutcome> {
  try {
    const fetched = await fetchMissingState(ctx, request);
    if (fetched.kind !== "incomplete") return fetched;
    const { provedFalse, reason: detail, idsLeft } = fetched;
    return { kind: "failed", cause: provedFalse ? "invalid-data" : "unknown-event", detail, idsLeft };
  } catch (error) {
    if (!(error instanceof FederationFailure)) throw error;
    const wait = error.retryAfterMs === undefined ? {} : { retryAfterMs: error.retryAfterMs };
    return { kind: "failed", cause: faultOf(error), detail: error.reason, ...wait };
  }
}
