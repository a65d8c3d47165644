import { Resolver } from "node:dns/promises";
import { LRUCache } from "lru-cache";
import { errors } from "undici";
import { authorizationHeader } from "../federation-api/x-matrix.ts";
import { isServerName } from "../matrix/identifiers.ts";
import type { ServerName } from "../matrix/identifiers.ts";
import { stringifyJson } from "../matrix/json.ts";
import type { JsonObject } from "../matrix/json.ts";
import type { SigningKey } from "../matrix/signatures.ts";
import { createAddressBlocklist } from "./address-blocklist.ts";
import { createConnections } from "./connections.ts";
import type { AddressLookup, Connections } from "./connections.ts";
import {
  ACCEPTED_ENCODINGS,
  BodyTooLargeError,
  decodeBody,
  ignoreLateErrors,
  UnknownEncodingError,
} from "../federation-api/decode-body.ts";
import { discoverServer } from "./discovery.ts";
import type { DiscoverySources, ServerAddress, SrvRecord } from "./discovery.ts";
import { FederationFailure } from "./failures.ts";
import { fetchWellKnown, headerValue } from "./fetch-well-known.ts";
import { failureOf } from "./map-error.ts";
import type { RequestPhase } from "./map-error.ts";
import { createWellKnownLookup } from "./well-known.ts";

interface TransportOptions {
  readonly serverName: ServerName;
  readonly signingKey: SigningKey;
  /** CIDR ranges that are never connected to. */
  readonly ipBlocklist: readonly string[];
  readonly verifyCertificates: boolean;
  /** PEM certificates of authorities trusted besides the usual ones. */
  readonly extraAuthorities?: string | undefined;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Instead of the system's resolver and the hosts' own well-known files. */
  readonly lookup?: AddressLookup | undefined;
  readonly discovery?: Partial<DiscoverySources> | undefined;
}

export interface TransportRequest {
  readonly method: "GET" | "PUT" | "POST";
  /** With the query, as it is sent and signed. */
  readonly path: string;
  readonly content?: JsonObject | undefined;
  /** False only for the endpoints that need no authentication. */
  readonly signed: boolean;
}

export interface TransportLimits {
  /** For the whole exchange, discovery and the answer's body included. */
  readonly timeoutMs: number;
  /** Until the answer begins, and between two pieces of it. */
  readonly idleMs: number;
  /** Of the body once decoded. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
}

export interface TransportAnswer {
  readonly status: number;
  /** To be read once; throws only FederationFailure, or the reason of the caller's signal. */
  readonly body: AsyncIterable<Uint8Array>;
}

export interface Transport {
  /**
   * Sends a request and hands the answer, whatever its status, to `read`. Redirects are not followed.
   *
   * @throws FederationFailure, the reason of the caller's signal, and what `read` throws
   */
  exchange<T>(
    server: ServerName,
    request: TransportRequest,
    limits: TransportLimits,
    read: (answer: TransportAnswer) => Promise<T>,
  ): Promise<T>;
  close(): Promise<void>;
}

interface TransportContext {
  readonly options: TransportOptions;
  readonly connections: Connections;
  readonly discover: (server: ServerName) => Promise<readonly ServerAddress[]>;
  /** Drops what was found for a server, since it led nowhere. */
  readonly forget: (server: ServerName) => void;
}

/** One exchange with what bounds it: `signal` joins the total limit and the caller's own abort. */
interface Exchange {
  readonly server: ServerName;
  readonly request: TransportRequest;
  readonly limits: TransportLimits;
  readonly signal: AbortSignal;
}

type Answer = Awaited<ReturnType<ReturnType<Connections["dispatcherFor"]>["request"]>>;

const ADDRESSES_TTL_MS = 5 * 60_000;
const MAX_ADDRESSES = 20_000;

function discoverySources(options: TransportOptions, connections: Connections): DiscoverySources {
  const resolver = new Resolver({ timeout: 5_000, tries: 2 });
  const wellKnown = createWellKnownLookup(
    (hostname) => fetchWellKnown(connections, new URL(`https://${hostname}/.well-known/matrix/server`)),
    options.now,
  );
  // No record, no such name, and no DNS server to ask (a host file may do without): the next step decides.
  const srvRecords = (name: string): Promise<readonly SrvRecord[]> => resolver.resolveSrv(name).catch(() => []);
  return { wellKnown, srvRecords, random: Math.random, ...options.discovery };
}

function createDiscovery(sources: DiscoverySources): Pick<TransportContext, "discover" | "forget"> {
  const known = new LRUCache<ServerName, Promise<readonly ServerAddress[]>>({
    max: MAX_ADDRESSES,
    ttl: ADDRESSES_TTL_MS,
  });
  return {
    discover(server) {
      const cached = known.get(server);
      if (cached !== undefined) return cached;
      const found = discoverServer(server, sources);
      known.set(server, found);
      found.catch(() => known.delete(server));
      return found;
    },
    forget: (server) => void known.delete(server),
  };
}

/** A signal of the total limit and the caller's abort, which leaves neither timer nor listener behind. */
function startPatience(limits: TransportLimits): { readonly signal: AbortSignal; readonly end: () => void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(new DOMException("too slow", "TimeoutError")), limits.timeoutMs);
  const onAbort = (): void => controller.abort(limits.signal?.reason);
  limits.signal?.addEventListener("abort", onAbort, { once: true });
  if (limits.signal?.aborted === true) onAbort();
  const end = (): void => {
    clearTimeout(timer);
    limits.signal?.removeEventListener("abort", onAbort);
  };
  return { signal: controller.signal, end };
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** An error of the network as what it means; the caller's own abort stays what it is. */
function blame(exchange: Exchange, error: unknown, phase: RequestPhase): unknown {
  const { server, limits } = exchange;
  return limits.signal?.aborted === true ? limits.signal.reason : failureOf(server, error, phase);
}

async function* guardedBody(exchange: Exchange, answer: Answer): AsyncGenerator<Uint8Array, void, void> {
  const encoding = headerValue(answer.headers["content-encoding"]) ?? "";
  try {
    yield* decodeBody(answer.body, encoding, exchange.limits.maxBytes);
  } catch (error) {
    if (error instanceof BodyTooLargeError || error instanceof UnknownEncodingError) {
      const { server } = exchange;
      throw new FederationFailure({ kind: "bad-response", server, reason: error.message, cause: error });
    }
    throw blame(exchange, error, "reading");
  }
}

function send(context: TransportContext, exchange: Exchange, address: ServerAddress): Promise<Answer> {
  const { options, connections } = context;
  const { server, request, limits, signal } = exchange;
  const { method, path, content, signed } = request;
  const signable = { method, uri: path, origin: options.serverName, destination: server, content };
  return connections.dispatcherFor(address).request({
    method,
    path,
    headers: {
      host: address.hostHeader,
      "user-agent": "Fastjoin",
      accept: "application/json",
      "accept-encoding": ACCEPTED_ENCODINGS,
      ...(content === undefined ? {} : { "content-type": "application/json" }),
      ...(signed ? { authorization: authorizationHeader(signable, options.signingKey) } : {}),
    },
    body: content === undefined ? null : stringifyJson(content),
    headersTimeout: limits.idleMs,
    bodyTimeout: limits.idleMs,
    signal,
  });
}

/** A kept-alive connection that the server closed just now; every federation request may be repeated. */
function wasStaleConnection(error: unknown): boolean {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return error instanceof errors.SocketError || code === "ECONNRESET" || code === "EPIPE";
}

async function sendTwice(context: TransportContext, exchange: Exchange, address: ServerAddress): Promise<Answer> {
  try {
    return await send(context, exchange, address);
  } catch (error) {
    if (!wasStaleConnection(error) || exchange.signal.aborted) throw error;
    return send(context, exchange, address);
  }
}

/** Tries a server's addresses in their order, the next one where there was no connection. */
async function openAnswer(context: TransportContext, exchange: Exchange): Promise<Answer> {
  const { server, signal } = exchange;
  let firstFailure: FederationFailure | undefined;
  for (const address of await abortable(context.discover(server), signal)) {
    try {
      return await sendTwice(context, exchange, address);
    } catch (error) {
      const failure = blame(exchange, error, "connecting");
      if (!(failure instanceof FederationFailure) || failure.kind !== "unreachable") throw failure;
      firstFailure ??= failure;
    }
  }
  context.forget(server);
  throw firstFailure ?? new FederationFailure({ kind: "unreachable", server, reason: "its DNS offers no federation" });
}

async function exchangeWith<T>(
  context: TransportContext,
  exchange: Exchange,
  read: (answer: TransportAnswer) => Promise<T>,
): Promise<T> {
  let answer: Answer;
  try {
    answer = await openAnswer(context, exchange);
  } catch (error) {
    throw blame(exchange, error, "connecting");
  }
  ignoreLateErrors(answer.body);
  try {
    return await read({ status: answer.statusCode, body: guardedBody(exchange, answer) });
  } finally {
    // What `read` left unread is not worth waiting for.
    answer.body.destroy();
  }
}

export function createTransport(options: TransportOptions): Transport {
  const { verifyCertificates, extraAuthorities, lookup } = options;
  const blocklist = createAddressBlocklist(options.ipBlocklist);
  const connections = createConnections({ blocklist, verifyCertificates, extraAuthorities, lookup });
  const context = { options, connections, ...createDiscovery(discoverySources(options, connections)) };

  return {
    async exchange(server, request, limits, read) {
      if (!isServerName(server)) {
        throw new FederationFailure({ kind: "unreachable", server, reason: "this is no server name" });
      }
      const patience = startPatience(limits);
      try {
        return await exchangeWith(context, { server, request, limits, signal: patience.signal }, read);
      } finally {
        patience.end();
      }
    },
    close: () => connections.close(),
  };
}
