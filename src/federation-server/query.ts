import { serveDirectory, serveProfile } from "../rooms/serve/serve-queries.ts";
import { signedEndpoint } from "./endpoint.ts";
import type { Endpoint } from "./endpoint.ts";
import { roomAliasOfQuery, userIdOfQuery } from "./request-parameters.ts";

/** @see https://spec.matrix.org/v1.19/server-server-api/#querying-for-information */
export const queryEndpoints: readonly Endpoint[] = [
  signedEndpoint("GET /_matrix/federation/v1/query/profile", async (ctx, request) => {
    return await serveProfile(ctx, userIdOfQuery(request), request.query.get("field") ?? undefined);
  }),

  signedEndpoint("GET /_matrix/federation/v1/query/directory", async (ctx, request) => {
    return await serveDirectory(ctx, roomAliasOfQuery(request));
  }),
];
