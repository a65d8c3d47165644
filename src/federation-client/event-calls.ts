import { paths } from "../federation-api/endpoints.ts";
import { callServer, jsonCall } from "./call-server.ts";
import type { CallContext } from "./call-server.ts";
import type { FederationClient, FederationClientOptions, OnEvent } from "./client.ts";
import { readLargeJson } from "./large-json.ts";
import { singleEventOf, transactionResponseOf } from "./read-answers.ts";
import { eventsIn, readStateIds } from "./read-lists.ts";
import { get, LARGE, MIB, MIDDLING, MINUTE_MS, post, put, QUICK } from "./requests.ts";

async function streamState(body: AsyncIterable<Uint8Array>, onEvent: OnEvent): Promise<void> {
  await readLargeJson(body, {
    lists: ["pdus", "auth_chain"],
    members: [],
    onElement: (list, pdu) => onEvent(list === "pdus" ? "state" : "auth_chain", pdu),
  });
}

/** No event's is longer in practice. */
const MAX_AUTH_CHAIN = 5_000;

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
        { request: get(paths.stateIds(roomId, eventId)), limits: { ...LARGE, maxBytes: 64 * MIB }, read: readStateIds },
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
      callServer(
        context,
        server,
        jsonCall(get(paths.event(eventId)), { ...QUICK, maxBytes: MIB }, singleEventOf),
        callOptions,
      ),
    eventAuth: (server, { roomId, eventId }, callOptions) =>
      callServer(
        context,
        server,
        {
          request: get(paths.eventAuth(roomId, eventId)),
          limits: MIDDLING,
          read: eventsIn("auth_chain", MAX_AUTH_CHAIN),
        },
        callOptions,
      ),
    getMissingEvents: (server, { roomId, earliestEvents, latestEvents, limit, minDepth = 0 }, callOptions) => {
      const content = { earliest_events: earliestEvents, latest_events: latestEvents, limit, min_depth: minDepth };
      const request = post(paths.getMissingEvents(roomId), content);
      return callServer(context, server, { request, limits: MIDDLING, read: eventsIn("events", limit) }, callOptions);
    },
    backfill: (server, { roomId, eventIds, limit }, callOptions) =>
      callServer(
        context,
        server,
        { request: get(paths.backfill(roomId, eventIds, limit)), limits: MIDDLING, read: eventsIn("pdus", limit) },
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
