import { z } from "zod";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { isUserId, type UserId } from "../matrix/identifiers.ts";
import { serveKeysClaim, serveKeysQuery, serveUserDevices } from "../rooms/devices/serve-devices.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint, FederationRequest } from "./endpoint.ts";
import { userIdOf } from "./request-parameters.ts";

const storable = z.string().refine((text) => !text.includes("\0"), "holds a NUL");
const user = z.custom<UserId>((value) => isUserId(value) && !value.includes("\0"), "expected a user id");

const queryBody = z.object({ device_keys: z.record(user, z.array(storable)) });
const claimBody = z.object({ one_time_keys: z.record(user, z.record(storable, storable)) });

/** @see https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption */
export const userDevicesEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/user/devices/:userId", async (ctx, request) => {
    return await serveUserDevices(ctx, userIdOf(request));
  }),

  signedEndpoint("POST /_matrix/federation/v1/user/keys/query", async (ctx, request) => {
    return await serveKeysQuery(ctx, byUser(bodyOf(request, queryBody).device_keys));
  }),

  signedEndpoint("POST /_matrix/federation/v1/user/keys/claim", async (ctx, request) => {
    return await serveKeysClaim(ctx, byUser(bodyOf(request, claimBody).one_time_keys));
  }),
];

/** The keys of a record whose schema takes user ids only. */
function byUser<T>(record: Readonly<Record<string, T>>): ReadonlyMap<UserId, T> {
  return new Map(Object.entries(record).map(([one, value]) => [one as UserId, value]));
}

function bodyOf<T>(request: FederationRequest, schema: z.ZodType<T>): T {
  const parsed = schema.safeParse(request.body ?? {});
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new MatrixError(400, "M_BAD_JSON", `${issue?.path.join(".") ?? "body"}: ${issue?.message ?? "invalid"}`);
}
