import { MatrixError } from "../federation-api/matrix-error.ts";
import { isJsonArray, isJsonObject } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";
import { serveInvite } from "../rooms/serve/serve-invite.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { arrayIn, eventIdOfPath, objectBody, roomIdOf } from "./request-parameters.ts";

/** Version 1 sends the event alone, with the room's state in its `unsigned`. */
function inviteRoomStateIn(unsigned: JsonValue | undefined): readonly JsonValue[] {
  const state = isJsonObject(unsigned) ? unsigned["invite_room_state"] : undefined;
  return isJsonArray(state) ? state : [];
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room */
export const inviteEndpoints: readonly Endpoint[] = [
  signedEndpoint("PUT /_matrix/federation/v1/invite/:roomId/:eventId", async (ctx, request) => {
    const pdu = objectBody(request);
    const event = await serveInvite(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      eventId: eventIdOfPath(request),
      // It is for room versions 1 and 2 only, which have one format of events.
      roomVersion: "1",
      pdu,
      inviteRoomState: inviteRoomStateIn(pdu["unsigned"]),
    });
    return [200, { event }];
  }),

  signedEndpoint("PUT /_matrix/federation/v2/invite/:roomId/:eventId", async (ctx, request) => {
    const body = objectBody(request);
    const { event: pdu, room_version: roomVersion } = body;
    if (!isJsonObject(pdu)) throw new MatrixError(400, "M_BAD_JSON", "event is not an object");
    if (typeof roomVersion !== "string") throw new MatrixError(400, "M_BAD_JSON", "room_version is not a string");
    const event = await serveInvite(ctx, {
      origin: request.origin,
      roomId: roomIdOf(request),
      eventId: eventIdOfPath(request),
      roomVersion,
      pdu,
      inviteRoomState: arrayIn(body, "invite_room_state"),
    });
    return { event };
  }),
];
