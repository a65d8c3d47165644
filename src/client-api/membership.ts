import { z } from "zod";
import type { JsonObject } from "../matrix/json.ts";
import { changeMembership } from "../rooms/send/change-membership.ts";
import type { MembershipChange } from "../rooms/send/change-membership.ts";
import { inviteUser } from "../rooms/send/invite-user.ts";
import { forgetRoom } from "../rooms/join/forget-room.ts";
import { leaveRoom } from "../rooms/join/leave-room.ts";
import { joinedRoomsOf } from "../rooms/read/read-members.ts";
import type { ClientApiContext } from "./context.ts";
import { parseBody, roomIdParam, userId } from "./request-body.ts";
import { userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";
import { waitOrExplain } from "./wait-or-explain.ts";

const leaveBody = z.object({ reason: z.string().optional() });
const targetBody = z.object({ user_id: userId, reason: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#room-membership */
export const membershipRoutes = [
  userRoute("GET /_matrix/client/v3/joined_rooms", async (ctx, { requester }) => ({
    joined_rooms: await joinedRoomsOf(ctx, requester.userId),
  })),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/leave", async (ctx, request) => {
    const { reason } = parseBody(request, leaveBody);
    const roomId = roomIdParam(request);
    const { userId: leaver } = request.requester;
    await leaveRoom(ctx, { userId: leaver, roomId, ...(reason === undefined ? {} : { reason }) });
    return {};
  }),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/forget", async (ctx, request) => {
    await forgetRoom(ctx, { userId: request.requester.userId, roomId: roomIdParam(request) });
    return {};
  }),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/invite", async (ctx, request) => {
    const { user_id: target, reason } = parseBody(request, targetBody);
    await inviteUser(ctx, {
      roomId: roomIdParam(request),
      sender: request.requester.userId,
      target,
      ...(reason === undefined ? {} : { reason }),
    });
    return {};
  }),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/kick", async (ctx, request) => change(ctx, request, "kick")),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/ban", async (ctx, request) => change(ctx, request, "ban")),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/unban", async (ctx, request) => change(ctx, request, "unban")),
];

async function change(
  ctx: ClientApiContext,
  request: AuthenticatedRequest,
  kind: MembershipChange["kind"],
): Promise<JsonObject> {
  const { user_id: target, reason } = parseBody(request, targetBody);
  const roomId = roomIdParam(request);
  await waitOrExplain(ctx, roomId, async () =>
    changeMembership(ctx, {
      kind,
      roomId,
      sender: request.requester.userId,
      target,
      signal: request.signal,
      ...(reason === undefined ? {} : { reason }),
    }),
  );
  return {};
}
