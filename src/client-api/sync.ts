import { longJson } from "../federation-api/long-json.ts";
import { sync } from "../rooms/sync/sync.ts";
import { parseSyncToken } from "../rooms/read/sync-token.ts";
import { parseFilter } from "./filter.ts";
import { booleanQuery, enumQuery, integerQuery } from "./request-body.ts";
import { userRoute } from "./route.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#syncing */
export const syncRoutes = [
  userRoute("GET /_matrix/client/v3/sync", async (ctx, request) => {
    const since = request.query.get("since");
    const filter = request.query.get("filter");
    const answer = await sync(ctx, {
      requester: request.requester,
      since: since === null || since === "" ? undefined : parseSyncToken(since),
      filter: filter === null || filter === "" ? {} : parseFilter(filter),
      fullState: booleanQuery(request, "full_state"),
      stateAfter: booleanQuery(request, "use_state_after"),
      setPresence: enumQuery(request, "set_presence", ["online", "unavailable", "offline"]) ?? "online",
      timeoutMs: integerQuery(request, "timeout", 0),
      signal: request.signal,
    });
    return longJson(answer);
  }),
];
