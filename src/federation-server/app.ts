import express from "express";
import type { Request, Response } from "express";
import { createBodyBudget } from "../federation-api/body-budget.ts";
import type { BodyBudget } from "../federation-api/body-budget.ts";
import { isLongJson, type LongJson } from "../federation-api/long-json.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { withRequestBody } from "../federation-api/read-request-body.ts";
import { sendLongJson } from "../federation-api/send-long-json.ts";
import type { JsonValue } from "../matrix/json.ts";
import type { RoomsContext } from "../rooms/context.ts";
import { answerError, methodNotAllowed, sendJson, unrecognized } from "./answer-error.ts";
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
import { parseBody } from "./parse-body.ts";
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
  const budget = createBodyBudget(MAX_BODIES_BYTES);
  for (const path of new Set(ENDPOINTS.map((endpoint) => endpoint.path))) {
    app.all(path, async (request, response) => {
      const endpoint = ENDPOINTS.find((one) => one.path === path && one.method === request.method);
      if (endpoint === undefined) methodNotAllowed(request, response);
      else await answer(ctx, endpoint, { request, response, budget });
    });
  }
  app.use(unrecognized);
  app.use(answerError(ctx.logger));
  return app;
}

interface Exchange {
  readonly request: Request;
  readonly response: Response;
  readonly budget: BodyBudget;
}

type Handle = (raw: Uint8Array) => Promise<JsonValue | LongJson>;

/** Reads who claims to have signed before anything is spent on the request. */
function handlerOf(ctx: RoomsContext, endpoint: Endpoint, request: Request): Handle {
  if (!endpoint.signed) return async (raw) => endpoint.handle(ctx, federationRequest(request, parseBody(raw)));
  const claimed = readClaimedOrigin(ctx.serverName, request.headersDistinct["authorization"] ?? []);
  return async (raw) => {
    const content = parseBody(raw);
    const decoded = federationRequest(request, content);
    await authenticateRequest(ctx, { method: request.method, uri: request.originalUrl, content }, claimed);
    noteAlive(ctx, claimed.origin);
    return endpoint.handle(ctx, { ...decoded, origin: claimed.origin });
  };
}

async function answer(ctx: RoomsContext, endpoint: Endpoint, exchange: Exchange): Promise<void> {
  const { request, response, budget } = exchange;
  const handle = handlerOf(ctx, endpoint, request);
  const reply = await withRequestBody(request, { maxBytes: endpoint.maxBodyBytes, budget }, handle);
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
/** Read and parsed, and for the time of their handling, a body takes several times its size. */
const MAX_BODIES_BYTES = 24 * 1_048_576;
