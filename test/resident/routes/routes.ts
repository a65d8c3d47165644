import type { Endpoint } from "../trouble.ts";
import type { Handler } from "../visit.ts";
import { userDevices, userKeysClaim, userKeysQuery } from "./device-routes.ts";
import { backfill, getMissingEvents } from "./history-routes.ts";
import { queryKeys, serverKeys, version } from "./key-routes.ts";
import { makeKnock, sendKnock } from "./knock-routes.ts";
import { makeJoin, makeLeave, sendLeaveV1, sendLeaveV2 } from "./membership-routes.ts";
import { directory, invite, profile, send } from "./receive-routes.ts";
import { sendJoinV1, sendJoinV2 } from "./send-join-routes.ts";
import { event, eventAuth, state, stateIds } from "./state-routes.ts";

interface Route {
  readonly endpoint: Endpoint;
  readonly method: string;
  readonly segments: readonly string[];
  /** Anyone may ask: there is no X-Matrix header to check. */
  readonly open: boolean;
  readonly handler: Handler;
}

function route(endpoint: Endpoint, line: string, handler: Handler): Route {
  const [method = "", path = ""] = line.split(" ");
  const open = endpoint === "version" || endpoint === "server_keys" || endpoint === "query_keys";
  return { endpoint, method, segments: `_matrix/${path}`.split("/"), open, handler };
}

const ROUTES: readonly Route[] = [
  route("version", "GET federation/v1/version", version),
  route("server_keys", "GET key/v2/server", serverKeys),
  route("query_keys", "POST key/v2/query", queryKeys),
  route("send", "PUT federation/v1/send/:txn", send),
  route("make_join", "GET federation/v1/make_join/:room/:user", makeJoin),
  route("send_join", "PUT federation/v1/send_join/:room/:event", sendJoinV1),
  route("send_join", "PUT federation/v2/send_join/:room/:event", sendJoinV2),
  route("make_knock", "GET federation/v1/make_knock/:room/:user", makeKnock),
  route("send_knock", "PUT federation/v1/send_knock/:room/:event", sendKnock),
  route("make_leave", "GET federation/v1/make_leave/:room/:user", makeLeave),
  route("send_leave", "PUT federation/v1/send_leave/:room/:event", sendLeaveV1),
  route("send_leave", "PUT federation/v2/send_leave/:room/:event", sendLeaveV2),
  route("invite", "PUT federation/v2/invite/:room/:event", invite),
  route("state", "GET federation/v1/state/:room", state),
  route("state_ids", "GET federation/v1/state_ids/:room", stateIds),
  route("event", "GET federation/v1/event/:event", event),
  route("event_auth", "GET federation/v1/event_auth/:room/:event", eventAuth),
  route("get_missing_events", "POST federation/v1/get_missing_events/:room", getMissingEvents),
  route("backfill", "GET federation/v1/backfill/:room", backfill),
  route("profile", "GET federation/v1/query/profile", profile),
  route("directory", "GET federation/v1/query/directory", directory),
  route("user_devices", "GET federation/v1/user/devices/:user", userDevices),
  route("user_keys_query", "POST federation/v1/user/keys/query", userKeysQuery),
  route("user_keys_claim", "POST federation/v1/user/keys/claim", userKeysClaim),
];

export interface Match {
  readonly route: Route;
  readonly path: Readonly<Record<string, string>>;
}

/** Splits before it decodes: an event id of room version 3 may hold a slash. */
export function matchRoute(method: string, pathname: string): Match | undefined {
  const segments = pathname.slice(1).split("/");
  for (const one of ROUTES) {
    if (one.method !== method || one.segments.length !== segments.length) continue;
    const path = variablesOf(one.segments, segments);
    if (path !== undefined) return { route: one, path };
  }
  return undefined;
}

function variablesOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  const variables: Record<string, string> = {};
  for (const [index, expected] of pattern.entries()) {
    const segment = segments[index] ?? "";
    if (expected.startsWith(":")) variables[expected.slice(1)] = decodeURIComponent(segment);
    else if (expected !== segment) return undefined;
  }
  return variables;
}
