import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import pino from "pino";
import { afterAll } from "vitest";
import { authorizationHeader } from "../../src/federation-api/x-matrix.ts";
import { createFederationClient } from "../../src/federation-client/client.ts";
import { createKeyRing } from "../../src/federation-client/key-ring.ts";
import { createFederationApp } from "../../src/federation-server/app.ts";
import type { Event, Pdu } from "../../src/matrix/event.ts";
import { eventIdOf } from "../../src/matrix/hashes.ts";
import type { ServerName } from "../../src/matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { hashAndSignEvent, signingKeyFromSeed } from "../../src/matrix/signatures.ts";
import type { SigningKey } from "../../src/matrix/signatures.ts";
import type { RoomsContext } from "../../src/rooms/context.ts";
import type { Database } from "../../src/storage/database.ts";
import { storeServerKeys } from "../../src/storage/server-keys.ts";

/** A use-case context of `us.example` that reaches nobody: every name resolves to a closed port. */
export function aRoomsContext(database: Database, changes: Partial<RoomsContext> = {}): RoomsContext {
  const serverName = "us.example";
  const signingKey = signingKeyFromSeed("ed25519:us", Buffer.alloc(32, 1));
  const now = changes.now ?? Date.now;
  const federation = createFederationClient({
    serverName,
    signingKey,
    database,
    ipBlocklist: ["0.0.0.0/0", "::/0"],
    verifyCertificates: false,
    now,
    discovery: { wellKnown: async () => undefined, srvRecords: async () => [] },
  });
  afterAll(() => federation.close());
  return {
    serverName,
    signingKey,
    database,
    federation,
    keyRing: createKeyRing({ database, client: federation, serverName, signingKey, trustedKeyServers: [], now }),
    resyncs: { start: async () => {}, wake: async () => {}, cancel: async () => {} },
    logger: pino({ level: process.env["TEST_LOG_LEVEL"] ?? "silent" }),
    now,
    fullStateWaitMs: 1000,
    defaultRoomVersion: "11",
    ...changes,
  };
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: JsonValue;
  readonly text: string;
}

/** Another server, as far as we see of it: its name, its key and what it asks us. */
export interface RemoteServer {
  readonly name: ServerName;
  readonly key: SigningKey;
  /** The Authorization header of a request. */
  header(method: string, path: string, body?: JsonValue): string;
  /** A signed request. */
  ask(method: string, path: string, body?: JsonValue): Promise<HttpAnswer>;
  /** Completes a template of ours the way a joining server does. */
  complete(template: JsonObject, rules: RoomVersionRules): Event;
}

export interface LoopbackFederation {
  /** An unsigned request. */
  fetch(path: string, init?: RequestInit): Promise<HttpAnswer>;
  /** A server whose key we know. */
  remote(name: ServerName): Promise<RemoteServer>;
}

/** The federation listener on a free port of the loopback interface, until the file's tests are over. */
export async function startLoopbackFederation(ctx: RoomsContext): Promise<LoopbackFederation> {
  const server = createServer(createFederationApp(ctx));
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const fetchJson = async (path: string, init: RequestInit = {}): Promise<HttpAnswer> => {
    const response = await fetch(`${origin}${path}`, init);
    const text = await response.text();
    return { status: response.status, text, body: parseJson(text) };
  };
  return { fetch: fetchJson, remote: (name) => remoteServer(ctx, name, fetchJson) };
}

async function remoteServer(
  ctx: RoomsContext,
  name: ServerName,
  fetchJson: LoopbackFederation["fetch"],
): Promise<RemoteServer> {
  const key = signingKeyFromSeed("ed25519:them", Buffer.alloc(32, name));
  await storeServerKeys(ctx.database.pool, [
    {
      serverName: name,
      keyId: key.keyId,
      publicKey: Buffer.from(key.publicKey).toString("base64").replaceAll("=", ""),
      validUntilTs: ctx.now() + 86_400_000,
      fetchedAt: ctx.now(),
    },
  ]);
  const header: RemoteServer["header"] = (method, path, body) =>
    authorizationHeader({ method, uri: path, origin: name, destination: ctx.serverName, content: body }, key);
  return {
    name,
    key,
    header,
    ask(method, path, body) {
      const headers = { Authorization: header(method, path, body) };
      return fetchJson(path, { method, headers, ...(body === undefined ? {} : { body: stringifyJson(body) }) });
    },
    complete(template, rules) {
      const pdu = {
        ...template,
        ...(rules.eventIdFormat === "chosen-by-sender" ? { event_id: `$${Math.random()}:${name}` } : {}),
        origin: name,
        origin_server_ts: ctx.now(),
      } as unknown as Pdu;
      const signed = hashAndSignEvent(pdu, name, key, rules);
      return { eventId: eventIdOf(signed, rules), roomId: signed.room_id ?? "!", pdu: signed, rejected: false };
    },
  };
}
