import { longJson } from "../federation-api/long-json.ts";
import { serveEventAuth, serveState, serveStateIds } from "../rooms/serve/serve-state.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint, SignedRequest } from "./endpoint.ts";
import { eventIdOfPath, eventIdOfQuery, roomIdOf } from "./request-parameters.ts";

function stateQuestion(request: SignedRequest): Parameters<typeof serveState>[1] {
  return { origin: request.origin, roomId: roomIdOf(request), eventId: eventIdOfQuery(request) };
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#retrieving-events */
export const stateEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/state/:roomId", async (ctx, request) => {
    const { state, authChain } = await serveState(ctx, stateQuestion(request));
    return longJson({ pdus: state, auth_chain: authChain });
  }),

  signedEndpoint("GET /_matrix/federation/v1/state_ids/:roomId", async (ctx, request) => {
    const { state, authChain } = await serveStateIds(ctx, stateQuestion(request));
    return longJson({ pdu_ids: state, auth_chain_ids: authChain });
  }),

  signedEndpoint("GET /_matrix/federation/v1/event_auth/:roomId/:eventId", async (ctx, request) => {
    const question = { origin: request.origin, roomId: roomIdOf(request), eventId: eventIdOfPath(request) };
    return longJson({ auth_chain: await serveEventAuth(ctx, question) });
  }),
];
