import { serveMissingEvents } from "../rooms/serve/serve-events.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { countIn, eventIdsIn, objectBody, roomIdOf } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid */
export const getMissingEventsEndpoints: readonly Endpoint[] = [
  signedEndpoint("POST /_matrix/federation/v1/get_missing_events/:roomId", async (ctx, request) => {
    const body = objectBody(request);
    const events = await serveMissingEvents(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      earliest: eventIdsIn(body, "earliest_events"),
      latest: eventIdsIn(body, "latest_events"),
      limit: countIn(body, "limit", 10),
      minDepth: countIn(body, "min_depth", 0),
    });
    return { events };
  }),
];
