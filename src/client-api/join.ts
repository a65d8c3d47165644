import { z } from "zod";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { memberContentOf } from "../rooms/accounts/profiles.ts";
import { joinRoom } from "../rooms/join/join-room.ts";
import type { ClientApiContext } from "./context.ts";
import { parseBody, roomIdParam } from "./request-body.ts";
import { roomToEnter, serversOfQuery } from "./room-to-enter.ts";
import { userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const joinBody = z.object({ reason: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#joining-rooms */
export const joinRoutes = [
  userRoute("POST /_matrix/client/v3/join/:roomIdOrAlias", async (ctx, request) =>
    join(ctx, request, await roomToEnter(ctx, request)),
  ),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/join", async (ctx, request) =>
    join(ctx, request, { roomId: roomIdParam(request), via: serversOfQuery(request) }),
  ),
];

async function join(
  ctx: ClientApiContext,
  request: AuthenticatedRequest,
  { roomId, via }: { readonly roomId: RoomId; readonly via: readonly ServerName[] },
): Promise<JsonObject> {
  const { reason } = parseBody(request, joinBody);
  const { userId } = request.requester;
  const profile = await memberContentOf(ctx, userId);
  const content = { ...profile, ...(reason === undefined ? {} : { reason }) };
  const { roomId: joined } = await joinRoom(ctx, { userId, roomId, via, content });
  return { room_id: joined };
}
