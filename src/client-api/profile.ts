import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { JsonObject } from "../matrix/json.ts";
import { profileOf, setProfileField } from "../rooms/accounts/profiles.ts";
import type { ClientApiContext } from "./context.ts";
import { parseBody, parseParam, userIdParam } from "./request-body.ts";
import { openRoute, param, userRoute } from "./route.ts";
import type { AuthenticatedRequest, ClientRequest } from "./route.ts";

const fieldName = z.enum(["displayname", "avatar_url"]);

/** @see https://spec.matrix.org/v1.19/client-server-api/#profiles */
export const profileRoutes = [
  openRoute("GET /_matrix/client/v3/profile/:userId", async (ctx, request) => {
    const profile = await profileOf(ctx, userIdParam(request));
    return { ...profile };
  }),
  openRoute("GET /_matrix/client/v3/profile/:userId/:field", getField),
  userRoute("PUT /_matrix/client/v3/profile/:userId/:field", putField),
];

async function getField(ctx: ClientApiContext, request: ClientRequest): Promise<JsonObject> {
  const field = parseParam("field", param(request, "field"), fieldName);
  const profile = await profileOf(ctx, userIdParam(request));
  return profile[field] === undefined ? {} : { [field]: profile[field] };
}

async function putField(ctx: ClientApiContext, request: AuthenticatedRequest): Promise<JsonObject> {
  const field = parseParam("field", param(request, "field"), fieldName);
  if (userIdParam(request) !== request.requester.userId) {
    throw new MatrixError(403, "M_FORBIDDEN", "A profile can only be changed by its owner");
  }
  const body = parseBody(request, z.object({ [field]: z.string().max(1024).nullable() }));
  await setProfileField(ctx, { userId: request.requester.userId, field, value: body[field] ?? "" });
  return {};
}
