import { createServer } from "node:http";
import type { ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, onTestFinished } from "vitest";
import { createAppserviceClient } from "../../src/appservice-client/client.ts";
import type { ApplicationService, Namespace } from "../../src/appservice-client/registration.ts";
import type { Appservices } from "../../src/rooms/context.ts";
import { startAppservicePushes } from "../../src/rooms/appservices/push-to-services.ts";
import type { AppservicePushes } from "../../src/rooms/appservices/push-to-services.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import type { Body } from "./loopback-client.ts";

export interface SeenByService {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  readonly body: Body;
  /** The body as it came. */
  readonly text: string;
}

export type ServiceHandler = (request: SeenByService, response: ServerResponse) => void | Promise<void>;

/** The side of an application service that listens. */
export interface ServiceReceiver {
  readonly url: string;
  readonly seen: readonly SeenByService[];
  /** What is done with each request from now on, instead of a plain 200. */
  handler: ServiceHandler;
  /** The transactions so far, failed attempts included. */
  transactions(): readonly SeenByService[];
  /** What the events of all acknowledged and failed transactions say, in order. */
  events(): readonly Body[];
}

export const acknowledge: ServiceHandler = (_request, response) => {
  response.writeHead(200, { "content-type": "application/json" }).end("{}");
};

export function refuse(status: number, body: object = {}): ServiceHandler {
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
}

/** An HTTP server on a free port of the loopback interface, until the file's tests are over. */
export async function startServiceReceiver(): Promise<ServiceReceiver> {
  const seen: SeenByService[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString("utf8");
      const { method = "", url = "", headers } = request;
      const body: Body = text === "" ? undefined : JSON.parse(text);
      const one = { method, path: url, authorization: headers.authorization, body, text };
      seen.push(one);
      await receiver.handler(one, response);
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const transactions = (): readonly SeenByService[] =>
    seen.filter(({ path }) => path.startsWith("/_matrix/app/v1/transactions/"));
  const receiver: ServiceReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    handler: acknowledge,
    transactions,
    events: () => transactions().flatMap(({ body }) => body.events),
  };
  return receiver;
}

export function namespace(regex: string, exclusive = false): Namespace {
  return { exclusive, pattern: new RegExp(`^(?:${regex})`) };
}

let services = 0;

/** A service without an address whose users begin with `@_bridge_`, which it has for itself. */
export function aService(changes: Partial<ApplicationService> = {}): ApplicationService {
  services += 1;
  return {
    id: `bridge ${services}`,
    url: null,
    asToken: `as-token-${services}`,
    hsToken: `hs-token-${services}`,
    senderLocalpart: `_bridge_bot_${services}`,
    receiveEphemeral: false,
    namespaces: { users: [namespace("@_bridge_.*", true)], aliases: [], rooms: [] },
    ...changes,
  };
}

/** Services as the context of the use cases has them, until the file's tests are over. */
export function appservicesOf(...all: readonly ApplicationService[]): Appservices {
  const client = createAppserviceClient({ pushTimeoutMs: 5_000, questionTimeoutMs: 30_000 });
  afterAll(() => client.close());
  return { services: all, client };
}

/** Pushes until the test is over, or until it is stopped before. */
export function pushUntilTestEnds(
  ctx: RoomsContext,
  options: Parameters<typeof startAppservicePushes>[1] = {},
): AppservicePushes {
  const pushes = startAppservicePushes(ctx, { firstRetryMs: 50, drainMs: 500, ...options });
  let stopped: Promise<void> | undefined;
  const stop = (): Promise<void> => (stopped ??= pushes.stop());
  onTestFinished(stop);
  return { stop };
}
