import { paths } from "../federation-api/endpoints.ts";
import { callServer, jsonCall } from "./call-server.ts";
import type { CallContext } from "./call-server.ts";
import type { FederationClient, FederationClientOptions, OnEvent } from "./client.ts";
import { readLargeJson } from "./large-json.ts";
import { listIn, singleEventOf, stateIdsOf, transactionResponseOf } from "./read-answers.ts";
import { get, LARGE, MIB, MIDDLING, MINUTE_MS, post, put, QUICK } from "./requests.ts";

async function streamState(body: AsyncIterable<Uint8Array>, onEvent: OnEvent): Promise<void> {
  await readLargeJson(body, {
    lists: ["pdus", "auth_chain"],
    members: [],
    onElement: (list, pdu) => onEvent(list === "pdus" ? "state" : "auth_chain", pdu),
  });
}

type EventCalls = Pick<
  FederationClient,
  "stateIds" | "state" | "event" | "eventAuth" | "getMissingEvents" | "backfill" | "sendTransaction"
>;

/** Events and state, fetched and sent. */
export function eventCalls(context: CallContext, options: FederationClientOptions): EventCalls {
  return {
    stateIds: (server, { roomId, eventId }, callOptions) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.stateIds(roomId, eventId)), { ...LARGE, maxBytes: 64 * MIB }, stateIdsOf),
        callOptions,
      ),
    state: (server, { roomId, eventId, onEvent }, callOptions) => {
      const read = (body: AsyncIterable<Uint8Array>): Promise<void> => streamState(body, onEvent);
      return callServer(
        context,
        server,
        { request: get(paths.state(roomId, eventId)), limits: LARGE, read },
        callOptions,
      );
    },
    event: (server, eventId, callOptions) =>
      callServer(context, server, jsonCall(get(paths.event(eventId)), QUICK, singleEventOf), callOptions),
    eventAuth: (server, { roomId, eventId }, callOptions) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.eventAuth(roomId, eventId)), MIDDLING, listIn("auth_chain")),
        callOptions,
      ),
    getMissingEvents: (server, { roomId, earliestEvents, latestEvents, limit, minDepth = 0 }, callOptions) => {
      const content = { earliest_events: earliestEvents, latest_events: latestEvents, limit, min_depth: minDepth };
      const call = jsonCall(post(paths.getMissingEvents(roomId), content), MIDDLING, listIn("events"));
      return callServer(context, server, call, callOptions);
    },
    backfill: (server, { roomId, eventIds, limit }, callOptions) =>
      callServer(
        context,
        server,
        jsonCall(get(paths.backfill(roomId, eventIds, limit)), MIDDLING, listIn("pdus")),
        callOptions,
      ),
    sendTransaction: (server, { txnId, pdus, edus = [] }, callOptions) => {
      const origin = { origin: options.serverName, origin_server_ts: options.now() };
      const content = { ...origin, pdus, ...(edus.length === 0 ? {} : { edus }) };
      const limits = { ...QUICK, timeoutMs: MINUTE_MS, idleMs: MINUTE_MS };
      const call = jsonCall(put(paths.send(txnId), content), limits, transactionResponseOf);
      return callServer(context, server, { ...call, purpose: "transaction" }, callOptions);
    },
  };
}
