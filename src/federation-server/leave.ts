import { serveMakeLeave, serveSendLeave } from "../rooms/serve/serve-leave.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint, SignedRequest } from "./endpoint.ts";
import { eventIdOfPath, objectBody, roomIdOf, userIdOf } from "./request-parameters.ts";

function sentLeave(request: SignedRequest): Parameters<typeof serveSendLeave>[1] {
  return {
    origin: request.origin,
    roomId: roomIdOf(request),
    eventId: eventIdOfPath(request),
    pdu: objectBody(request),
  };
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#leaving-rooms-rejecting-invites */
export const leaveEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/make_leave/:roomId/:userId", async (ctx, request) => {
    return await serveMakeLeave(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      userId: userIdOf(request),
    });
  }),

  // Version 1, no longer in the specification since 1.18, wraps its answer.
  signedEndpoint("PUT /_matrix/federation/v1/send_leave/:roomId/:eventId", async (ctx, request) => {
    await serveSendLeave(ctx, sentLeave(request));
    return [200, {}];
  }),

  signedEndpoint("PUT /_matrix/federation/v2/send_leave/:roomId/:eventId", async (ctx, request) => {
    await serveSendLeave(ctx, sentLeave(request));
    return {};
  }),
];
