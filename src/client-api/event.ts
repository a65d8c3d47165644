import { readContext } from "../rooms/read/read-context.ts";
import { readEvent } from "../rooms/read/read-event.ts";
import { parseInlineFilter } from "./filter.ts";
import { eventIdParam, integerQuery, roomIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";

const MAX_CONTEXT = 100;

/** @see https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room */
export const eventRoutes = [
  userRoute("GET /_matrix/client/v3/rooms/:roomId/event/:eventId", async (ctx, request) =>
    readEvent(ctx, { roomId: roomIdParam(request), eventId: eventIdParam(request), requester: request.requester }),
  ),
  userRoute("GET /_matrix/client/v3/rooms/:roomId/context/:eventId", async (ctx, request) => {
    const filter = request.query.get("filter");
    return readContext(ctx, {
      roomId: roomIdParam(request),
      eventId: eventIdParam(request),
      requester: request.requester,
      limit: Math.min(integerQuery(request, "limit", 10), MAX_CONTEXT),
      filter: filter === null ? {} : parseInlineFilter(filter),
    });
  }),
];
