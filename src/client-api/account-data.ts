import { MatrixError } from "../federation-api/matrix-error.ts";
import { readAccountData, setAccountData } from "../rooms/edus/account-data.ts";
import type { ClientApiContext } from "./context.ts";
import { jsonObject, parseBody, parseParam, roomId, userIdParam } from "./request-body.ts";
import { param, userRoute } from "./route.ts";
import type { AuthenticatedRequest } from "./route.ts";

const OF_USER = "/_matrix/client/v3/user/:userId/account_data/:type" as const;
const OF_ROOM = "/_matrix/client/v3/user/:userId/rooms/:roomId/account_data/:type" as const;

/** @see https://spec.matrix.org/v1.19/client-server-api/#client-config */
export const accountDataRoutes = [OF_USER, OF_ROOM].flatMap((path) => [
  userRoute(`GET ${path}`, async (ctx, request) => readAccountData(ctx, placeOf(request))),
  userRoute(`PUT ${path}`, putAccountData),
]);

async function putAccountData(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<Record<string, never>> {
  await setAccountData(ctx, placeOf(request), parseBody(request, jsonObject));
  return {};
}

function placeOf(request: AuthenticatedRequest): Parameters<typeof readAccountData>[1] {
  const { userId } = request.requester;
  if (userIdParam(request) !== userId) {
    throw new MatrixError(403, "M_FORBIDDEN", "Account data is its owner's alone");
  }
  const room = request.params["roomId"];
  return {
    userId,
    roomId: room === undefined ? undefined : parseParam("roomId", room, roomId),
    type: param(request, "type"),
  };
}
