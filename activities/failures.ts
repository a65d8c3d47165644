import type { ServerFault } from "../workflows/contract.ts";
import type { FederationFailure } from "../src/federation-client/failures.ts";

/** What a server's failure means for the resync: each cause has its own back-off and its own words for the operator. */
export function faultOf(failure: FederationFailure): ServerFault {
  switch (failure.kind) {
    case "unreachable":
    case "timeout":
    case "backing-off":
      return "unreachable";
    case "bad-response":
      return "invalid-data";
    case "refused":
      return refusalFault(failure);
  }
}

/** Residents say "Host not in room" while they have not seen our join; no error code tells that from a real ban. */
const NOT_IN_ROOM = /not (?:currently )?(?:joined|in) (?:to )?(?:the |this )?room/i;

function refusalFault({ status = 500, reason }: FederationFailure): ServerFault {
  if (status === 403) return NOT_IN_ROOM.test(reason) ? "not-seen-join" : "forbidden";
  if (status === 404) return "unknown-event";
  if (status === 429 || status >= 500) return "server-error";
  return "forbidden";
}
