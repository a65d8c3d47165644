import { z } from "zod";
import { isRoomAlias } from "../matrix/identifiers.ts";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { joinRoom } from "../rooms/join/join-room.ts";
import { memberContentOf } from "../rooms/accounts/profiles.ts";
import { resolveAlias } from "../rooms/accounts/room-directory.ts";
import type { ClientApiContext } from "./context.ts";
import { parseBody, parseParam, roomAlias, roomId, roomIdParam, serverName } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const joinBody = z.object({ reason: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#joining-rooms */
export const joinRoutes = [
  userRoute("POST /_matrix/client/v3/join/:roomIdOrAlias", joinByIdOrAlias),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/join", async (ctx, request) =>
    join(ctx, request, { roomId: roomIdParam(request), servers: [] }),
  ),
];

async function joinByIdOrAlias(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<JsonObject> {
  const idOrAlias = param(request, "roomIdOrAlias");
  const room = isRoomAlias(idOrAlias)
    ? await resolveAlias(ctx, parseParam("roomIdOrAlias", idOrAlias, roomAlias))
    : { roomId: parseParam("roomIdOrAlias", idOrAlias, roomId), servers: [] };
  return join(ctx, request, room);
}

async function join(
  ctx: ClientApiContext,
  request: AuthenticatedRequest,
  room: { readonly roomId: RoomId; readonly servers: readonly ServerName[] },
): Promise<JsonObject> {
  const { reason } = parseBody(request, joinBody);
  // `server_name` is what `via` was called before specification 1.12.
  const asked = [...request.query.getAll("via"), ...request.query.getAll("server_name")];
  const via = asked.map((name) => parseParam("via", name, serverName));
  const { roomId: joined } = await joinRoom(ctx, {
    userId: request.requester.userId,
    roomId: room.roomId,
    via: [...new Set([...via, ...room.servers])],
    content: { ...(await memberContentOf(ctx, request.requester.userId)), ...(reason === undefined ? {} : { reason }) },
  });
  return { room_id: joined };
}
