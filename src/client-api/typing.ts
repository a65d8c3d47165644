import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { setOwnTyping } from "../rooms/edus/typing.ts";
import { parseBody, roomIdParam, userIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";

const typingBody = z.object({ typing: z.boolean(), timeout: z.number().int().min(0).optional() });

/** Of a client that says no time. */
const DEFAULT_TIMEOUT_MS = 30_000;

/** @see https://spec.matrix.org/v1.19/client-server-api/#typing-notifications */
export const typingRoutes = [
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/typing/:userId", async (ctx, request) => {
    const { userId } = request.requester;
    if (userIdParam(request) !== userId) {
      throw new MatrixError(403, "M_FORBIDDEN", "Users type for themselves alone");
    }
    const { typing, timeout } = parseBody(request, typingBody);
    const forMs = typing ? (timeout ?? DEFAULT_TIMEOUT_MS) : undefined;
    await setOwnTyping(ctx, { roomId: roomIdParam(request), userId, forMs });
    return {};
  }),
];
