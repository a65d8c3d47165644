import { z } from "zod";
import { memberContentOf } from "../rooms/accounts/profiles.ts";
import { knockOnRoom } from "../rooms/join/knock-room.ts";
import { parseBody } from "./request-body.ts";
import { roomToEnter } from "./room-to-enter.ts";
import { userRoute } from "./route.ts";

const knockBody = z.object({ reason: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#knocking-on-rooms */
export const knockRoutes = [
  userRoute("POST /_matrix/client/v3/knock/:roomIdOrAlias", async (ctx, request) => {
    const { reason } = parseBody(request, knockBody);
    const { userId } = request.requester;
    const { roomId, via } = await roomToEnter(ctx, request);
    const profile = await memberContentOf(ctx, userId);
    const content = { ...profile, ...(reason === undefined ? {} : { reason }) };
    await knockOnRoom(ctx, { userId, roomId, via, content });
    return { room_id: roomId };
  }),
];
