import { serveEvent } from "../rooms/serve/serve-events.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventIdOfPath } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid */
export const eventEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/event/:eventId", async (ctx, request) => {
    const pdu = await serveEvent(ctx, { origin: request.origin, eventId: eventIdOfPath(request) });
    return { origin: ctx.serverName, origin_server_ts: ctx.now(), pdus: [pdu] };
  }),
];
