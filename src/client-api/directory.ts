import { z } from "zod";
import { removeAlias } from "../rooms/accounts/remove-alias.ts";
import { createAlias, resolveAlias } from "../rooms/accounts/room-directory.ts";
import { requireAliasAllowed } from "../rooms/appservices/namespaces.ts";
import { readAliases } from "../rooms/read/read-aliases.ts";
import { parseBody, parseParam, roomAlias, roomId, roomIdParam } from "./request-body.ts";
import { openRoute, userRoute } from "./route.ts";
import type { ClientRequest } from "./route.ts";

const aliasBody = z.object({ room_id: roomId });

function aliasParam(request: ClientRequest) {
  return parseParam("roomAlias", request.params["roomAlias"], roomAlias);
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#room-aliases */
export const directoryRoutes = [
  openRoute("GET /_matrix/client/v3/directory/room/:roomAlias", async (ctx, request) => {
    const room = await resolveAlias(ctx, aliasParam(request));
    return { room_id: room.roomId, servers: room.servers };
  }),
  userRoute("PUT /_matrix/client/v3/directory/room/:roomAlias", async (ctx, request) => {
    const { room_id } = parseBody(request, aliasBody);
    const { userId, service } = request.requester;
    const alias = aliasParam(request);
    requireAliasAllowed(ctx, alias, service);
    await createAlias(ctx, { alias, roomId: room_id, creator: userId });
    return {};
  }),
  userRoute("DELETE /_matrix/client/v3/directory/room/:roomAlias", async (ctx, request) => {
    const { userId, service } = request.requester;
    const alias = aliasParam(request);
    requireAliasAllowed(ctx, alias, service);
    await removeAlias(ctx, { alias, userId });
    return {};
  }),
  userRoute("GET /_matrix/client/v3/rooms/:roomId/aliases", async (ctx, request) => ({
    aliases: await readAliases(ctx, {
      roomId: roomIdParam(request),
      userId: request.requester.userId,
      signal: request.signal,
    }),
  })),
];
