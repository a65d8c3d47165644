import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { isUserId } from "../matrix/identifiers.ts";
import type { UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { checkPassword, openSession } from "../rooms/accounts/accounts.ts";
import type { ClientApiContext } from "./context.ts";
import { parseBody } from "./request-body.ts";
import { openRoute } from "./route.ts";
import type { ClientRequest } from "./route.ts";

const loginBody = z.object({
  type: z.string(),
  identifier: z.object({ type: z.string(), user: z.string().optional() }).optional(),
  // Before `identifier`, clients named the user here.
  user: z.string().optional(),
  password: z.string().optional(),
  device_id: z.string().min(1).max(255).optional(),
  initial_device_display_name: z.string().optional(),
});

/** @see https://spec.matrix.org/v1.19/client-server-api/#login */
export const loginRoutes = [
  openRoute("GET /_matrix/client/v3/login", async () => ({ flows: [{ type: "m.login.password" }] })),
  openRoute("POST /_matrix/client/v3/login", login),
];

async function login(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const body = parseBody(request, loginBody);
  if (body.type !== "m.login.password") {
    throw new MatrixError(400, "M_UNKNOWN", "body.type: only m.login.password is supported");
  }
  if (body.identifier !== undefined && body.identifier.type !== "m.id.user") {
    throw new MatrixError(400, "M_UNKNOWN", "body.identifier.type: only m.id.user is supported");
  }
  const user = body.identifier?.user ?? body.user;
  if (user === undefined || body.password === undefined) {
    throw new MatrixError(400, "M_MISSING_PARAM", "body.identifier.user and body.password are required");
  }
  const userId: UserId = isUserId(user) ? user : `@${user}:${ctx.serverName}`;
  await checkPassword(ctx, { userId, password: body.password });
  const session = await openSession(ctx, {
    userId,
    deviceId: body.device_id,
    displayName: body.initial_device_display_name,
  });
  return { user_id: userId, access_token: session.accessToken, device_id: session.deviceId };
}
