import { closeAllSessions, closeSession } from "../rooms/accounts/accounts.ts";
import { userRoute } from "./route.ts";

/** @see https://spec.matrix.org/v1.19/client-server-api/#current-account-information */
export const accountRoutes = [
  userRoute("GET /_matrix/client/v3/account/whoami", async (_ctx, { requester }) => ({
    user_id: requester.userId,
    ...(requester.deviceId === "" ? {} : { device_id: requester.deviceId }),
    is_guest: false,
  })),
  userRoute("POST /_matrix/client/v3/logout", async (ctx, { requester }) => {
    await closeSession(ctx, requester);
    return {};
  }),
  userRoute("POST /_matrix/client/v3/logout/all", async (ctx, { requester }) => {
    await closeAllSessions(ctx, requester.userId);
    return {};
  }),
];
