import { serveMakeKnock, serveSendKnock } from "../rooms/serve/serve-knock.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventIdOfPath, objectBody, roomIdOf, userIdOf } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#knocking-upon-a-room */
export const knockEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/make_knock/:roomId/:userId", async (ctx, request) => {
    return await serveMakeKnock(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      userId: userIdOf(request),
      versions: request.query.getAll("ver"),
    });
  }),

  signedEndpoint("PUT /_matrix/federation/v1/send_knock/:roomId/:eventId", async (ctx, request) => {
    const knockRoomState = await serveSendKnock(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      eventId: eventIdOfPath(request),
      pdu: objectBody(request),
    });
    return { knock_room_state: knockRoomState };
  }),
];
