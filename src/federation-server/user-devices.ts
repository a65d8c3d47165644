import { serveUserDevices } from "../rooms/serve/serve-queries.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { userIdOf } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid */
export const userDevicesEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/user/devices/:userId", async (ctx, request) => {
    return await serveUserDevices(ctx, userIdOf(request));
  }),
];
