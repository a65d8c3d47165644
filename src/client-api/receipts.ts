import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { EventId, RoomId } from "../matrix/identifiers.ts";
import { setFullyRead } from "../rooms/edus/account-data.ts";
import { setOwnReceipt } from "../rooms/edus/receipts.ts";
import type { ClientApiContext } from "./context.ts";
import { eventId, eventIdParam, parseBody, parseParam, roomIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const receiptType = z.enum(["m.read", "m.read.private", "m.fully_read"]);
const receiptBody = z.object({ thread_id: z.json().optional() });
const markersBody = z.object({
  "m.fully_read": eventId.optional(),
  "m.read": eventId.optional(),
  "m.read.private": eventId.optional(),
});

/** @see https://spec.matrix.org/v1.19/client-server-api/#receipts */
export const receiptRoutes = [
  userRoute("POST /_matrix/client/v3/rooms/:roomId/receipt/:receiptType/:eventId", postReceipt),
  userRoute("POST /_matrix/client/v3/rooms/:roomId/read_markers", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const markers = Object.entries(parseBody(request, markersBody)) as [Marker["type"], EventId | undefined][];
    for (const [type, eventId] of markers) {
      if (eventId !== undefined) await setMarker(ctx, request, { roomId, type, eventId });
    }
    return {};
  }),
];

interface Marker {
  readonly roomId: RoomId;
  readonly type: z.infer<typeof receiptType>;
  readonly eventId: EventId;
  readonly threadId?: string | undefined;
}

async function postReceipt(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<Record<string, never>> {
  const type = parseParam("receiptType", param(request, "receiptType"), receiptType);
  const { thread_id: threadId } = parseBody(request, receiptBody);
  const marker = { roomId: roomIdParam(request), type, eventId: eventIdParam(request) };
  await setMarker(ctx, request, { ...marker, threadId: threadIdOf(type, threadId) });
  return {};
}

function threadIdOf(type: Marker["type"], threadId: unknown): string | undefined {
  if (threadId === undefined) return undefined;
  if (type === "m.fully_read") {
    throw new MatrixError(400, "M_INVALID_PARAM", "body.thread_id: m.fully_read is of no thread");
  }
  if (threadId !== "main" && !eventId.safeParse(threadId).success) {
    throw new MatrixError(400, "M_INVALID_PARAM", "body.thread_id: expected an event id or main");
  }
  return threadId as string;
}

async function setMarker(ctx: ClientApiContext, { requester }: AuthenticatedRequest, marker: Marker): Promise<void> {
  const { userId } = requester;
  const { type } = marker;
  if (type === "m.fully_read") await setFullyRead(ctx, { ...marker, userId });
  else await setOwnReceipt(ctx, { ...marker, type, userId });
}
