import { longJson } from "../federation-api/long-json.ts";
import { setState } from "../rooms/join/set-state.ts";
import { readState, readStateEvent } from "../rooms/read/read-state.ts";
import { enumQuery, jsonObject, parseBody, roomIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { ClientRequest } from "./route.ts";
import { waitOrExplain } from "./wait-or-explain.ts";

function keyParams(request: ClientRequest) {
  return { type: param(request, "eventType"), stateKey: request.params["stateKey"] ?? "" };
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room */
export const roomStateRoutes = [
  userRoute("GET /_matrix/client/v3/rooms/:roomId/state", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const { userId } = request.requester;
    const reader = { roomId, userId, signal: request.signal };
    return waitOrExplain(ctx, roomId, async () => longJson(await readState(ctx, reader)));
  }),
  userRoute("GET /_matrix/client/v3/rooms/:roomId/state/:eventType{/:stateKey}", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const { userId } = request.requester;
    const wanted = { roomId, userId, ...keyParams(request), signal: request.signal };
    const event = await waitOrExplain(ctx, roomId, async () => readStateEvent(ctx, wanted));
    return enumQuery(request, "format", ["content", "event"]) === "event" ? event : event.content;
  }),
  userRoute("PUT /_matrix/client/v3/rooms/:roomId/state/:eventType{/:stateKey}", async (ctx, request) => {
    const roomId = roomIdParam(request);
    const content = parseBody(request, jsonObject);
    const change = { roomId, sender: request.requester.userId, ...keyParams(request), content, signal: request.signal };
    const eventId = await waitOrExplain(ctx, roomId, async () => setState(ctx, change));
    return { event_id: eventId };
  }),
];
