import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "pino";
import { ConfigError } from "./config.ts";
import type { Listen } from "./settings.ts";
import type { Certificate } from "./tls.ts";

export interface Listener {
  /** With the port that was really taken, where the setting left the choice. */
  readonly url: string;
  /** Takes no more requests, and gives those under way a moment. */
  close(): Promise<void>;
}

export interface ListenerOptions {
  /** The setting that chose the address, for the error message. */
  readonly variable: string;
  readonly listen: Listen;
  readonly certificate?: Certificate | undefined;
  /** Told of connections on which no request came that could be read. */
  readonly logger: Logger;
  /** How long a request may take to arrive, its body included (two minutes). */
  readonly arrivesWithinMs?: number;
  /** Connections at once; more are closed as they come. Any number if it is left out. */
  readonly maxConnections?: number;
}

const DRAIN_MS = 3_000;
/** Our longest request, a transaction of many large events, takes this on a slow line. */
const ARRIVES_WITHIN_MS = 120_000;
const HEADERS_ARRIVE_WITHIN_MS = 30_000;
/** How often it is looked for requests that take too long. */
const LOOK_EVERY_MS = 5_000;
/** Those that are turned away are told of together: the log is not to be flooded either. */
const TELL_EVERY_MS = 10_000;

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  await Promise.race([closed, delay(DRAIN_MS, undefined, { ref: false })]);
  // Long polls of /sync: their clients ask again.
  server.closeAllConnections();
  await closed;
}

interface Unreadable {
  readonly status: string;
  readonly error: string;
}

/** By the code of Node's HTTP parser. */
const UNREADABLE: Readonly<Record<string, Unreadable>> = {
  ERR_HTTP_REQUEST_TIMEOUT: { status: "408 Request Timeout", error: "The request did not arrive in time" },
  HPE_INVALID_EOF_STATE: { status: "400 Bad Request", error: "The request was cut off" },
  HPE_HEADER_OVERFLOW: { status: "431 Request Header Fields Too Large", error: "The headers are too large" },
  HPE_CHUNK_EXTENSIONS_OVERFLOW: { status: "413 Payload Too Large", error: "The chunk extensions are too large" },
};
const NO_HTTP: Unreadable = { status: "400 Bad Request", error: "This is no HTTP request that can be read" };

/** Answers what no application gets to see, as JSON all the same. */
function answerUnreadable(error: Error & { readonly code?: string }, socket: Socket, logger: Logger): void {
  const { code = "", message } = error;
  const { status, error: told } = UNREADABLE[code] ?? NO_HTTP;
  // A connection that was closed in between is nothing to tell of.
  if (!socket.writable || socket.destroyed || code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  logger.info({ code, reason: message, remote: socket.remoteAddress }, `a request could not be read: ${told}`);
  const body = JSON.stringify({ errcode: "M_UNKNOWN", error: told });
  const head = ["content-type: application/json", `content-length: ${Buffer.byteLength(body)}`, "connection: close"];
  socket.end(`HTTP/1.1 ${status}\r\n${head.join("\r\n")}\r\n\r\n${body}`, () => socket.destroy());
}

/** No one connection or request can take a place for ever, and all of them together only so many. */
function boundRequests(server: Server, options: ListenerOptions): void {
  const { logger, arrivesWithinMs = ARRIVES_WITHIN_MS, maxConnections } = options;
  server.requestTimeout = arrivesWithinMs;
  server.headersTimeout = Math.min(HEADERS_ARRIVE_WITHIN_MS, arrivesWithinMs);
  server.on("clientError", (error: Error, socket) => answerUnreadable(error, socket as Socket, logger));
  if (maxConnections === undefined) return;
  server.maxConnections = maxConnections;
  let turnedAway = 0;
  server.on("drop", () => {
    turnedAway += 1;
    if (turnedAway > 1) return;
    setTimeout(() => {
      logger.warn({ turnedAway, maxConnections }, "connections were turned away, since there are too many");
      turnedAway = 0;
    }, TELL_EVERY_MS).unref();
  });
}

/** Starts to listen. @throws ConfigError if the address can't be had */
export async function openListener(app: RequestListener, options: ListenerOptions): Promise<Listener> {
  const { listen, certificate, variable } = options;
  const often = { connectionsCheckingInterval: Math.min(LOOK_EVERY_MS, options.arrivesWithinMs ?? LOOK_EVERY_MS) };
  const server = certificate ? createHttpsServer({ ...certificate, ...often }, app) : createHttpServer(often, app);
  boundRequests(server, options);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(listen.port, listen.host, resolve);
  }).catch((error: unknown) => {
    const cause = error instanceof Error ? error.message : String(error);
    throw new ConfigError(`${variable} holds an address that can't be listened on: ${cause}`, { cause: error });
  });
  const { port } = server.address() as AddressInfo;
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  return { url: `${certificate ? "https" : "http"}://${host}:${port}`, close: () => close(server) };
}
