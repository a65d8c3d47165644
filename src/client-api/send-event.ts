import { z } from "zod";
import { isEventId } from "../matrix/identifiers.ts";
import type { EventId } from "../matrix/identifiers.ts";
import { redactEvent } from "../rooms/send/redact-event.ts";
import { sendOnce } from "../rooms/send/send-once.ts";
import type { ClientApiContext } from "./context.ts";
import { eventIdParam, jsonObject, parseBody, roomIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const redactBody = z.object({ reason: z.string().optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#sending-events-to-a-room */
export const sendEventRoutes = [
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/send/:eventType/:txnId", async (ctx, request) => ({
    event_id: await send(ctx, request),
  })),
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/redact/:eventId/:txnId", async (ctx, request) => {
    const { reason } = parseBody(request, redactBody);
    const [roomId, redacts] = [roomIdParam(request), eventIdParam(request)];
    const path = [roomId, "redact", redacts, param(request, "txnId")];
    const content = reason === undefined ? {} : { reason };
    const sender = request.requester.userId;
    return { event_id: await redactEvent(ctx, { ...request.requester, path }, { roomId, sender, redacts, content }) };
  }),
];

async function send(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<EventId> {
  const [roomId, type] = [roomIdParam(request), param(request, "eventType")];
  const transaction = { ...request.requester, path: [roomId, "send", type, param(request, "txnId")] };
  const content = parseBody(request, jsonObject);
  const sender = request.requester.userId;
  const { redacts } = content;
  return type === "m.room.redaction" && isEventId(redacts)
    ? redactEvent(ctx, transaction, { roomId, sender, redacts, content })
    : sendOnce(ctx, transaction, { roomId, sender, type, content });
}
