import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { readPresence, setOwnPresence } from "../rooms/edus/own-presence.ts";
import { parseBody, userIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";

const presenceBody = z.object({
  presence: z.enum(["online", "unavailable", "offline"]),
  status_msg: z.string().max(1_024).nullable().optional(),
});

/** @see https://spec.matrix.org/v1.19/client-server-api/#presence */
export const presenceRoutes = [
  userRoute("GET /_matrix/client/v3/presence/:userId/status", async (ctx, request) =>
    readPresence(ctx, { userId: userIdParam(request), viewer: request.requester.userId }),
  ),
  userRoute("PUT /_matrix/client/v3/presence/:userId/status", async (ctx, request) => {
    const { userId } = request.requester;
    if (userIdParam(request) !== userId) {
      throw new MatrixError(403, "M_FORBIDDEN", "Presence is set by its owner alone");
    }
    const { presence, status_msg: statusMsg } = parseBody(request, presenceBody);
    await setOwnPresence(ctx, { userId, presence, statusMsg: statusMsg ?? null });
    return {};
  }),
];
