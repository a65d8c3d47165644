import { longJson } from "../federation-api/long-json.ts";
import { joinedMembersOf, membersOf } from "../rooms/read/read-members.ts";
import { parseSyncToken } from "../rooms/read/sync-token.ts";
import { enumQuery, roomIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";
import { waitOrExplain } from "./wait-or-explain.ts";

const MEMBERSHIPS = ["join", "invite", "knock", "leave", "ban"] as const;

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers */
export const memberRoutes = [
  userRoute("GET /_matrix/client/v3/rooms/:roomId/members", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const at = request.query.get("at");
    const wanted = {
      roomId,
      userId: request.requester.userId,
      signal: request.signal,
      at: at === null ? undefined : parseSyncToken(at),
      membership: enumQuery(request, "membership", MEMBERSHIPS),
      notMembership: enumQuery(request, "not_membership", MEMBERSHIPS),
    };
    return waitOrExplain(ctx, roomId, async () => longJson({ chunk: await membersOf(ctx, wanted) }));
  }),
  userRoute("GET /_matrix/client/v3/rooms/:roomId/joined_members", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const { userId } = request.requester;
    const reader = { roomId, userId, signal: request.signal };
    return waitOrExplain(ctx, roomId, async () => longJson({ joined: await joinedMembersOf(ctx, reader) }));
  }),
];
