import { readEvent } from "../rooms/read-event.ts";
import { eventIdParam, roomIdParam } from "./request-body.ts";
import { userRoute } from "./route.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid */
export const eventRoutes = [
  userRoute("GET /_matrix/client/v3/rooms/:roomId/event/:eventId", async (ctx, request) =>
    readEvent(ctx, { roomId: roomIdParam(request), eventId: eventIdParam(request), requester: request.requester }),
  ),
];
