import { createServer } from "node:https";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import { generate } from "selfsigned";
import { onTestFinished } from "vitest";
import { createFederationClient } from "../../../src/federation-client/client.ts";
import type { FederationClient, FederationClientOptions } from "../../../src/federation-client/client.ts";
import { FederationFailure } from "../../../src/federation-client/failures.ts";
import { signingKeyFromSeed } from "../../../src/matrix/signatures.ts";
import type { Database } from "../../../src/storage/database.ts";

export const ourKey = signingKeyFromSeed("ed25519:us", Buffer.alloc(32, 1));

export interface Certificate {
  readonly key: string;
  readonly cert: string;
}

/** A certificate for the names, signed by `authority` or by itself. */
export async function aCertificate(names: readonly string[], authority?: Certificate): Promise<Certificate> {
  const { private: key, cert } = await generate([{ name: "commonName", value: names[0] ?? "nobody" }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: authority === undefined },
      { name: "subjectAltName", altNames: names.map((value) => ({ type: 2 as const, value })) },
    ],
    ...(authority === undefined ? {} : { ca: authority }),
  });
  return { key, cert };
}

export interface SeenRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
  /** The name that the client asked for in the TLS handshake. */
  readonly sni: string | undefined;
}

export interface LoopbackServer {
  readonly port: number;
  /** A server name that needs no discovery. */
  readonly name: string;
  readonly seen: readonly SeenRequest[];
}

export type Handler = (request: SeenRequest, response: ServerResponse) => void | Promise<void>;

let shared: Promise<Certificate> | undefined;

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

/** An HTTPS server on a free port of the loopback interface, which does what the test says, until the test is over. */
export async function startServer(handler: Handler, certificate?: Certificate): Promise<LoopbackServer> {
  shared ??= aCertificate(["localhost"]);
  const seen: SeenRequest[] = [];
  const server = createServer({ ...(certificate ?? (await shared)), maxHeaderSize: 65_536 }, (request, response) => {
    void (async () => {
      const { method = "", url = "", headers } = request;
      // Typed as a string, it is false where the client named none.
      const sni = (request.socket as TLSSocket & { servername?: string | false }).servername || undefined;
      const one = { method, url, headers, body: await readBody(request), sni };
      seen.push(one);
      await handler(one, response);
    })();
  });
  server.on("error", (error) => {
    throw error;
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { port, name: `localhost:${port}`, seen };
}

/** Answers every request with the same JSON. */
export function answering(body: unknown, status = 200): Handler {
  return (_request, response) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };
}

/** A client of `us.example` that may talk to the loopback interface. */
export function aClient(database: Database, changes: Partial<FederationClientOptions> = {}): FederationClient {
  const client = createFederationClient({
    serverName: "us.example",
    signingKey: ourKey,
    database,
    ipBlocklist: [],
    verifyCertificates: false,
    now: Date.now,
    lookup: async () => [{ address: "127.0.0.1", family: 4 }],
    ...changes,
  });
  onTestFinished(() => client.close());
  return client;
}

/** The failure of a call that must fail. */
export async function failureOf(call: Promise<unknown>): Promise<FederationFailure> {
  try {
    await call;
  } catch (error) {
    if (error instanceof FederationFailure) return error;
    throw error;
  }
  throw new Error("the call did not fail");
}
