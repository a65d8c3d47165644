import { z } from "zod";
import { sendOnce } from "../rooms/send-once.ts";
import { eventIdParam, jsonObject, parseBody, roomIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const redactBody = z.object({ reason: z.string().optional() });

function transactionOf(request: AuthenticatedRequest) {
  return { ...request.requester, txnId: param(request, "txnId") };
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room */
export const sendEventRoutes = [
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/send/:eventType/:txnId", async (ctx, request) => ({
    event_id: await sendOnce(ctx, transactionOf(request), {
      roomId: roomIdParam(request),
      sender: request.requester.userId,
      type: param(request, "eventType"),
      content: parseBody(request, jsonObject),
    }),
  })),
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/redact/:eventId/:txnId", async (ctx, request) => {
    const { reason } = parseBody(request, redactBody);
    const eventId = await sendOnce(ctx, transactionOf(request), {
      roomId: roomIdParam(request),
      sender: request.requester.userId,
      type: "m.room.redaction",
      content: reason === undefined ? {} : { reason },
      redacts: eventIdParam(request),
    });
    return { event_id: eventId };
  }),
];
