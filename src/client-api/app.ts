import express from "express";
import type { NextFunction, Request, Response, Router } from "express";
import { isLongJson } from "../federation-api/long-json.ts";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { sendLongJson } from "../federation-api/send-long-json.ts";
import { accountDataRoutes } from "./account-data.ts";
import { accountRoutes } from "./account.ts";
import { answerError, methodNotAllowed, unrecognized } from "./answer-error.ts";
import { appserviceRoutes } from "./appservice.ts";
import { accessTokenOf, authenticate } from "./authenticate.ts";
import { capabilitiesRoutes } from "./capabilities.ts";
import type { ClientApiContext } from "./context.ts";
import { createRoomRoutes } from "./create-room.ts";
import { devicesRoutes } from "./devices.ts";
import { directoryRoutes } from "./directory.ts";
import { eventRoutes } from "./event.ts";
import { filterRoutes } from "./filter.ts";
import { joinRoutes } from "./join.ts";
import { knockRoutes } from "./knock.ts";
import { keysRoutes } from "./keys.ts";
import { loginRoutes } from "./login.ts";
import { memberRoutes } from "./members.ts";
import { membershipRoutes } from "./membership.ts";
import { messagesRoutes } from "./messages.ts";
import { presenceRoutes } from "./presence.ts";
import { profileRoutes } from "./profile.ts";
import { readBody } from "./read-body.ts";
import { receiptRoutes } from "./receipts.ts";
import { registerRoutes } from "./register.ts";
import { roomStateRoutes } from "./room-state.ts";
import type { ClientRequest, Route } from "./route.ts";
import { sendJson } from "./send-json.ts";
import { sendEventRoutes } from "./send-event.ts";
import { syncRoutes } from "./sync.ts";
import { toDeviceRoutes } from "./to-device.ts";
import { upgradeRoomRoutes } from "./upgrade-room.ts";
import { typingRoutes } from "./typing.ts";
import { versionsRoutes } from "./versions.ts";

const ROUTES: readonly Route[] = [
  ...versionsRoutes,
  ...capabilitiesRoutes,
  ...registerRoutes,
  ...loginRoutes,
  ...accountRoutes,
  ...appserviceRoutes,
  ...profileRoutes,
  ...directoryRoutes,
  ...createRoomRoutes,
  ...joinRoutes,
  ...knockRoutes,
  ...membershipRoutes,
  ...sendEventRoutes,
  ...roomStateRoutes,
  ...memberRoutes,
  ...messagesRoutes,
  ...eventRoutes,
  ...filterRoutes,
  ...typingRoutes,
  ...receiptRoutes,
  ...presenceRoutes,
  ...accountDataRoutes,
  ...upgradeRoomRoutes,
  ...devicesRoutes,
  ...keysRoutes,
  ...toDeviceRoutes,
  ...syncRoutes,
];

/**
 * The client-server API as an Express application, for the client listener.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/
 */
export function createClientApp(ctx: ClientApiContext): express.Express {
  const app = express();
  app.disable("x-powered-by");
  app.disable("etag");
  for (const router of ctx.extraRouters ?? []) {
    app.use(router);
  }
  app.use("/_matrix", allowCrossOrigin);
  app.use("/_matrix", readBody());
  app.use(routerOf(ctx, ROUTES));
  app.use(unrecognized);
  app.use(answerError(ctx.logger));
  return app;
}

/** @see https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients */
function allowCrossOrigin(request: Request, response: Response, next: NextFunction): void {
  response.set({
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
  });
  if (request.method === "OPTIONS") {
    response.status(204).end();
    return;
  }
  next();
}

function routerOf(ctx: ClientApiContext, routes: readonly Route[]): Router {
  const router = express.Router();
  for (const path of new Set(routes.map((route) => route.path))) {
    // Clients older than specification 1.1 ask under r0 for what is v3 now, unchanged.
    const place = router.route([path, ...(path.includes("/v3/") ? [path.replace("/v3/", "/r0/")] : [])]);
    for (const endpoint of routes.filter((route) => route.path === path)) {
      place[endpoint.method](async (request, response) => {
        await answer(ctx, endpoint, { request, response });
      });
    }
    place.all(methodNotAllowed);
  }
  return router;
}

async function answer(
  ctx: ClientApiContext,
  route: Route,
  { request, response }: { readonly request: Request; readonly response: Response },
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => {
    gone.abort(new MatrixError(499, "M_UNKNOWN", "The client closed the connection"));
  });
  const clientRequest = clientRequestOf(request, gone.signal);
  const body = route.authenticated
    ? await route.handle(ctx, await authenticate(ctx, clientRequest))
    : await route.handle(ctx, clientRequest);
  if (isLongJson(body)) await sendLongJson(response, body);
  else sendJson(response, 200, body);
}

function clientRequestOf(request: Request, signal: AbortSignal): ClientRequest {
  const params: Record<string, string> = {};
  for (const [name, value] of Object.entries(request.params)) {
    params[name] = typeof value === "string" ? value : (value ?? []).join("/");
  }
  const query = new URL(request.originalUrl, "http://localhost").searchParams;
  const accessToken = accessTokenOf(request.headers.authorization, query);
  return { params, query, body: request.body, accessToken, signal };
}
