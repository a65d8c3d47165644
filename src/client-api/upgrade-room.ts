import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { ROOM_VERSIONS } from "../matrix/room-versions.ts";
import { upgradeRoom } from "../rooms/send/upgrade-room.ts";
import { parseBody, roomIdParam, userId } from "./request-body.ts";
import { userRoute } from "./route.ts";
import { waitOrExplain } from "./wait-or-explain.ts";

const upgradeBody = z.object({ new_version: z.string(), additional_creators: z.array(userId).optional() });

/** @see https://spec.matrix.org/v1.19/client-server-api/#room-upgrades */
export const upgradeRoomRoutes = [
  userRoute("POST /_matrix/client/v3/rooms/:roomId/upgrade", async (ctx, request) => {
    const body = parseBody(request, upgradeBody);
    const version = ROOM_VERSIONS.find((known) => known === body.new_version);
    if (version === undefined) {
      throw new MatrixError(400, "M_UNSUPPORTED_ROOM_VERSION", `body.new_version: ${body.new_version} is not known`);
    }
    const roomId = roomIdParam(request);
    const upgrade = {
      roomId,
      userId: request.requester.userId,
      version,
      additionalCreators: body.additional_creators ?? [],
      signal: request.signal,
    };
    return { replacement_room: await waitOrExplain(ctx, roomId, async () => upgradeRoom(ctx, upgrade)) };
  }),
];
