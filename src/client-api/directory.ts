import { z } from "zod";
import { removeAlias } from "../rooms/accounts/remove-alias.ts";
import { createAlias, resolveAlias } from "../rooms/accounts/room-directory.ts";
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
    await createAlias(ctx, { alias: aliasParam(request), roomId: room_id, creator: request.requester.userId });
    return {};
  }),
  userRoute("DELETE /_matrix/client/v3/directory/room/:roomAlias", async (ctx, request) => {
    await removeAlias(ctx, { alias: aliasParam(request), userId: request.requester.userId });
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
