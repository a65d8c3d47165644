import { behindStatus, longJson } from "../federation-api/long-json.ts";
import { serveMakeJoin, serveSendJoin } from "../rooms/serve/serve-join.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventIdOfPath, flagOfQuery, objectBody, roomIdOf, userIdOf } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#joining-rooms */
export const joinEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/make_join/:roomId/:userId", async (ctx, request) => {
    const versions = request.query.getAll("ver");
    return await serveMakeJoin(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      userId: userIdOf(request),
      // A server that names none is older than room versions.
      versions: versions.length === 0 ? ["1"] : versions,
    });
  }),

  // Version 1, no longer in the specification since 1.18, wraps its answer and knows no omitted members.
  signedEndpoint("PUT /_matrix/federation/v1/send_join/:roomId/:eventId", async (ctx, request) => {
    const { state, authChain, event } = await serveSendJoin(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      eventId: eventIdOfPath(request),
      pdu: objectBody(request),
      omitMembers: false,
    });
    return behindStatus(longJson({ origin: ctx.serverName, event, state, auth_chain: authChain }));
  }),

  signedEndpoint("PUT /_matrix/federation/v2/send_join/:roomId/:eventId", async (ctx, request) => {
    const joined = await serveSendJoin(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      eventId: eventIdOfPath(request),
      pdu: objectBody(request),
      omitMembers: flagOfQuery(request, "omit_members"),
    });
    return longJson({
      origin: ctx.serverName,
      members_omitted: joined.membersOmitted,
      ...(joined.membersOmitted ? { servers_in_room: joined.serversInRoom } : {}),
      event: joined.event,
      state: joined.state,
      auth_chain: joined.authChain,
    });
  }),
];
