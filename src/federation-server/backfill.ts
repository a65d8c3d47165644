import { serveBackfill } from "../rooms/serve/serve-events.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { countOfQuery, eventIdsOfQuery, roomIdOf } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid */
export const backfillEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/backfill/:roomId", async (ctx, request) => {
    const pdus = await serveBackfill(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      from: eventIdsOfQuery(request, "v"),
      limit: countOfQuery(request, "limit"),
    });
    return { origin: ctx.serverName, origin_server_ts: ctx.now(), pdus };
  }),
];
