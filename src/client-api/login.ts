import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { isUserId } from "../matrix/identifiers.ts";
import type { UserId } from "../matrix/identifiers.ts";
import type { JsonObject } from "../matrix/json.ts";
import { checkPassword, openSession } from "../rooms/accounts/accounts.ts";
import { requesterOfService } from "../rooms/appservices/act-as.ts";
import { isUserOf, senderOf, servicesOf } from "../rooms/appservices/namespaces.ts";
import { requireService } from "./authenticate.ts";
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

const PASSWORD = "m.login.password";
const APPLICATION_SERVICE = "m.login.application_service";

/** @see https://spec.matrix.org/v1.19/client-server-api/#login */
export const loginRoutes = [
  openRoute("GET /_matrix/client/v3/login", async (ctx) => ({
    flows: [PASSWORD, ...(servicesOf(ctx).length > 0 ? [APPLICATION_SERVICE] : [])].map((type) => ({ type })),
  })),
  openRoute("POST /_matrix/client/v3/login", login),
];

async function login(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const body = parseBody(request, loginBody);
  if (body.type !== PASSWORD && body.type !== APPLICATION_SERVICE) {
    throw new MatrixError(400, "M_UNKNOWN", `body.type: only ${PASSWORD} and ${APPLICATION_SERVICE} are supported`);
  }
  if (body.identifier !== undefined && body.identifier.type !== "m.id.user") {
    throw new MatrixError(400, "M_UNKNOWN", "body.identifier.type: only m.id.user is supported");
  }
  const userId =
    body.type === PASSWORD ? await userByPassword(ctx, body) : await userByService(ctx, request, userOf(ctx, body));
  const session = await openSession(ctx, {
    userId,
    deviceId: body.device_id,
    displayName: body.initial_device_display_name,
  });
  return { user_id: userId, access_token: session.accessToken, device_id: session.deviceId };
}

type LoginBody = z.infer<typeof loginBody>;

function userOf(ctx: ClientApiContext, body: LoginBody): UserId | undefined {
  const user = body.identifier?.user ?? body.user;
  return user === undefined || isUserId(user) ? user : `@${user}:${ctx.serverName}`;
}

async function userByPassword(ctx: ClientApiContext, body: LoginBody): Promise<UserId> {
  const userId = userOf(ctx, body);
  if (userId === undefined || body.password === undefined) {
    throw new MatrixError(400, "M_MISSING_PARAM", "body.identifier.user and body.password are required");
  }
  await checkPassword(ctx, { userId, password: body.password });
  return userId;
}

/** @see https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions */
async function userByService(
  ctx: ClientApiContext,
  request: ClientRequest,
  named: UserId | undefined,
): Promise<UserId> {
  const service = requireService(ctx, request);
  const userId = named ?? senderOf(service, ctx.serverName);
  if (!isUserOf(service, userId, ctx.serverName)) {
    throw new MatrixError(403, "M_EXCLUSIVE", `${userId} is not in the namespace of the application service`);
  }
  return (await requesterOfService(ctx, service, { userId, deviceId: undefined })).userId;
}
