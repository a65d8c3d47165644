import { paths } from "../federation-api/endpoints.ts";
import type { JsonObject } from "../matrix/json.ts";
import { callServer, jsonCall } from "./call-server.ts";
import type { CallContext } from "./call-server.ts";
import type { FederationClient } from "./client.ts";
import { directoryResponseOf, listIn, objectOf, serverKeysOf } from "./read-answers.ts";
import { get, MIB, MIDDLING, post, QUICK, SECOND_MS } from "./requests.ts";

function keyCriteria(wanted: Parameters<FederationClient["queryKeys"]>[1]): JsonObject {
  const servers = [...wanted].map(([server, keys]) => {
    const criteria = [...keys].map(([keyId, { minimumValidUntilTs }]) => [
      keyId,
      minimumValidUntilTs === undefined ? {} : { minimum_valid_until_ts: minimumValidUntilTs },
    ]);
    return [server, Object.fromEntries(criteria)];
  });
  return { server_keys: Object.fromEntries(servers) as JsonObject };
}

type QueryCalls = Pick<
  FederationClient,
  "queryProfile" | "queryDirectory" | "userDevices" | "queryUserKeys" | "claimUserKeys" | "serverKeys" | "queryKeys"
>;

/** Profiles, aliases, devices, keys. */
export function queryCalls(context: CallContext): QueryCalls {
  return {
    queryProfile: (server, { userId, field }, options) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.queryProfile(userId, field)), QUICK, (answer) => objectOf(answer)),
        options,
      ),
    queryDirectory: (server, alias, options) =>
      callServer(context, server, jsonCall(get(paths.queryDirectory(alias)), QUICK, directoryResponseOf), options),
    userDevices: (server, userId, options) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.userDevices(userId)), QUICK, (answer) => objectOf(answer)),
        options,
      ),
    queryUserKeys: (server, deviceKeys, options) =>
      callServer(
        context,
        server,
        jsonCall(post(paths.queryUserKeys(), { device_keys: deviceKeys }), QUICK, (answer) => objectOf(answer)),
        options,
      ),
    claimUserKeys: (server, oneTimeKeys, options) =>
      callServer(
        context,
        server,
        jsonCall(post(paths.claimUserKeys(), { one_time_keys: oneTimeKeys }), QUICK, (answer) => objectOf(answer)),
        options,
      ),
    serverKeys: (server, options) => {
      const request = { ...get(paths.serverKeys()), signed: false };
      const limits = { timeoutMs: 10 * SECOND_MS, idleMs: 10 * SECOND_MS, maxBytes: MIB / 4 };
      return callServer(context, server, { ...jsonCall(request, limits, serverKeysOf), purpose: "keys" }, options);
    },
    queryKeys: (notary, wanted, options) => {
      const request = post(paths.queryKeys(), keyCriteria(wanted));
      const call = jsonCall(request, { ...MIDDLING, maxBytes: 16 * MIB }, listIn("server_keys"));
      return callServer(context, notary, { ...call, purpose: "keys" }, options);
    },
  };
}
