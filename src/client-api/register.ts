import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { UserId } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject } from "../matrix/json.ts";
import { checkNameIsFree, createAccount, openSession } from "../rooms/accounts/accounts.ts";
import { requireUserAllowed } from "../rooms/appservices/namespaces.ts";
import { requireService } from "./authenticate.ts";
import type { ClientApiContext, Registration } from "./context.ts";
import { parseBody, parseParam } from "./request-body.ts";
import { openRoute } from "./route.ts";
import type { ClientRequest } from "./route.ts";

const registerBody = z.object({
  type: z.string().optional(),
  username: z.string().optional(),
  password: z.string().min(1).optional(),
  device_id: z.string().min(1).max(255).optional(),
  initial_device_display_name: z.string().optional(),
  inhibit_login: z.boolean().optional(),
});

/** @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register */
export const registerRoutes = [
  openRoute("POST /_matrix/client/v3/register", register),
  openRoute("GET /_matrix/client/v3/register/available", nameAvailable),
  openRoute("GET /_matrix/client/v1/register/m.login.registration_token/validity", tokenValidity),
];

async function register(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  if (isJsonObject(request.body) && request.body["type"] === "m.login.application_service") {
    return registerForService(ctx, request);
  }
  if (ctx.registration.kind === "closed") {
    throw new MatrixError(403, "M_FORBIDDEN", "Registration is closed");
  }
  if (request.query.get("kind") === "guest") {
    throw new MatrixError(403, "M_GUEST_ACCESS_FORBIDDEN", "Guests are not allowed");
  }
  const body = parseBody(request, registerBody);
  if (body.username !== undefined) {
    requireUserAllowed(ctx, `@${body.username}:${ctx.serverName}`);
    await checkNameIsFree(ctx, body.username);
  }
  checkStage(ctx.registration, request.body);
  if (body.password === undefined) {
    throw new MatrixError(400, "M_MISSING_PARAM", "body.password: a password is needed to log in again");
  }
  const localpart = body.username ?? randomBytes(8).toString("hex");
  return openFirstSession(ctx, await createAccount(ctx, { localpart, password: body.password }), body);
}

/**
 * An account without a password, also where registration is closed to people.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
 */
async function registerForService(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const service = requireService(ctx, request);
  const body = parseBody(request, registerBody);
  if (body.username === undefined) {
    throw new MatrixError(400, "M_MISSING_PARAM", "body.username: an application service names its users");
  }
  requireUserAllowed(ctx, `@${body.username}:${ctx.serverName}`, service);
  return openFirstSession(ctx, await createAccount(ctx, { localpart: body.username }), body);
}

async function openFirstSession(
  ctx: ClientApiContext,
  userId: UserId,
  body: z.infer<typeof registerBody>,
): Promise<JsonObject> {
  if (body.inhibit_login === true) {
    return { user_id: userId };
  }
  const session = await openSession(ctx, {
    userId,
    deviceId: body.device_id,
    displayName: body.initial_device_display_name,
  });
  return { user_id: userId, access_token: session.accessToken, device_id: session.deviceId };
}

/**
 * There is one flow of one stage, so nothing has to be remembered between the requests of a session.
 *
 * @throws MatrixError 401 with the flows until the stage is done
 * @see https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
 */
function checkStage(registration: Registration, body: ClientRequest["body"]): void {
  const stage = registration.kind === "secret" ? "m.login.registration_token" : "m.login.dummy";
  const auth = isJsonObject(body) ? body["auth"] : undefined;
  const given = isJsonObject(auth) ? auth : {};
  const challenge = {
    flows: [{ stages: [stage] }],
    params: {},
    completed: [],
    session: typeof given["session"] === "string" ? given["session"] : randomBytes(18).toString("base64url"),
  };
  if (given["type"] !== stage) {
    throw new MatrixError(401, "M_UNAUTHORIZED", `Registration needs the stage ${stage}`, challenge);
  }
  if (registration.kind === "secret" && !isSecret(registration.secret, given["token"])) {
    throw new MatrixError(401, "M_UNAUTHORIZED", "Invalid registration token", challenge);
  }
}

function isSecret(secret: string, given: unknown): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return typeof given === "string" && timingSafeEqual(digest(secret), digest(given));
}

async function nameAvailable(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const username = parseParam("username", request.query.get("username") ?? undefined, z.string());
  requireUserAllowed(ctx, `@${username}:${ctx.serverName}`);
  await checkNameIsFree(ctx, username);
  return { available: true };
}

async function tokenValidity(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const token = parseParam("token", request.query.get("token") ?? undefined, z.string());
  return { valid: ctx.registration.kind === "secret" && isSecret(ctx.registration.secret, token) };
}
