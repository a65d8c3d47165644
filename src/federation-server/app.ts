import express from "express";
import type { Request, Response } from "express";
import { MatrixError } from "../federation-api/matrix-error.ts";
import type { RoomsContext } from "../rooms/context.ts";
import { answerError, methodNotAllowed, sendJson, sendLongJson, unrecognized } from "./answer-error.ts";
import { authenticateRequest, readClaimedOrigin } from "./authenticate-request.ts";
import { backfillEndpoints } from "./backfill.ts";
import type { Endpoint, FederationRequest } from "./endpoint.ts";
import { eventEndpoints } from "./event.ts";
import { getMissingEventsEndpoints } from "./get-missing-events.ts";
import { inviteEndpoints } from "./invite.ts";
import { joinEndpoints } from "./join.ts";
import { knockEndpoints } from "./knock.ts";
import { leaveEndpoints } from "./leave.ts";
import { queryEndpoints } from "./query.ts";
import { isLongJson } from "./long-json.ts";
import { readBody } from "./read-body.ts";
import { sendEndpoints } from "./send.ts";
import { serverKeysEndpoints } from "./server-keys.ts";
import { stateEndpoints } from "./state.ts";
import { userDevicesEndpoints } from "./user-devices.ts";
import { versionEndpoints } from "./version.ts";

const ENDPOINTS: readonly Endpoint[] = [
  ...versionEndpoints,
  ...serverKeysEndpoints,
  ...sendEndpoints,
  ...eventEndpoints,
  ...stateEndpoints,
  ...getMissingEventsEndpoints,
  ...backfillEndpoints,
  ...joinEndpoints,
  ...leaveEndpoints,
  ...knockEndpoints,
  ...inviteEndpoints,
  ...queryEndpoints,
  ...userDevicesEndpoints,
];

/**
 * The federation API as an Express application, for the federation listener.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/
 */
export function createFederationApp(ctx: RoomsContext): express.Express {
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  app.enable("case sensitive routing");
  app.enable("strict routing");
  for (const path of new Set(ENDPOINTS.map((endpoint) => endpoint.path))) {
    app.all(path, async (request, response) => {
      const endpoint = ENDPOINTS.find((one) => one.path === path && one.method === request.method);
      if (endpoint === undefined) methodNotAllowed(request, response);
      else await answer(ctx, endpoint, { request, response });
    });
  }
  app.use(unrecognized);
  app.use(answerError(ctx.logger));
  return app;
}

async function answer(
  ctx: RoomsContext,
  endpoint: Endpoint,
  { request, response }: { readonly request: Request; readonly response: Response },
): Promise<void> {
  if (!endpoint.signed) {
    const body = await readBody(request, response, endpoint.maxBodyBytes);
    sendJson(response, 200, await endpoint.handle(ctx, federationRequest(request, body)));
    return;
  }
  const claimed = readClaimedOrigin(ctx.serverName, request.headersDistinct["authorization"] ?? []);
  const body = await readBody(request, response, endpoint.maxBodyBytes);
  const decoded = federationRequest(request, body);
  await authenticateRequest(ctx, { method: request.method, uri: request.originalUrl, content: body }, claimed);
  noteAlive(ctx, claimed.origin);
  const reply = await endpoint.handle(ctx, { ...decoded, origin: claimed.origin });
  if (isLongJson(reply)) await sendLongJson(response, reply);
  else sendJson(response, 200, reply);
}

/** A server that talks to us can be talked to: its back-off ends. The answer does not wait for that to be written. */
function noteAlive(ctx: RoomsContext, origin: string): void {
  ctx.federation.noteServerAlive(origin).catch((error: unknown) => {
    ctx.logger.warn({ err: error, origin }, "could not lift the back-off of a server");
  });
}

/** @throws URIError for a bad percent-encoding in the query; Express has thrown it for one in the path */
function federationRequest(request: Request, body: FederationRequest["body"]): FederationRequest {
  const params: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.params)) {
    params[name] = typeof value === "string" ? value : (value ?? []).join("/");
  }
  const question = request.originalUrl.indexOf("?");
  const search = question < 0 ? "" : request.originalUrl.slice(question + 1);
  // URLSearchParams reads anything; what it would have to guess at is refused first.
  decodeURIComponent(search);
  if (search.length > MAX_QUERY_LENGTH) throw new MatrixError(414, "M_TOO_LARGE", "The query is too long");
  return { params, query: new URLSearchParams(search), body };
}

const MAX_QUERY_LENGTH = 16_384;
