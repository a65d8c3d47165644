import { readMessages } from "../rooms/read/read-messages.ts";
import { parseSyncToken } from "../rooms/read/sync-token.ts";
import { parseInlineFilter } from "./filter.ts";
import { enumQuery, integerQuery, roomIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";

const MAX_PAGE = 1_000;

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages */
export const messagesRoutes = [
  userRoute("GET /_matrix/client/v3/rooms/:roomId/messages", async (ctx, request) => {
    const from = request.query.get("from");
    const to = request.query.get("to");
    const filter = request.query.get("filter");
    return readMessages(ctx, {
      roomId: roomIdParam(request),
      requester: request.requester,
      // Required since specification 1.3, but without it the end of the timeline in question is meant.
      direction: enumQuery(request, "dir", ["b", "f"]) ?? "b",
      from: from === null ? undefined : parseSyncToken(from),
      to: to === null ? undefined : parseSyncToken(to),
      limit: Math.min(Math.max(integerQuery(request, "limit", 10), 1), MAX_PAGE),
      filter: filter === null ? {} : parseInlineFilter(filter),
    });
  }),
];
