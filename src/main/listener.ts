import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
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
}

const DRAIN_MS = 3_000;

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  await Promise.race([closed, delay(DRAIN_MS, undefined, { ref: false })]);
  // Long polls of /sync: their clients ask again.
  server.closeAllConnections();
  await closed;
}

/** Starts to listen. @throws ConfigError if the address can't be had */
export async function openListener(app: RequestListener, options: ListenerOptions): Promise<Listener> {
  const { listen, certificate, variable } = options;
  const server = certificate ? createHttpsServer({ ...certificate }, app) : createHttpServer(app);
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
