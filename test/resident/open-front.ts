import { createServer as createPlainServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { MatrixError, matrixErrorBody } from "../../src/federation-api/matrix-error.ts";
import { parseXMatrix, signedRequestObject } from "../../src/federation-api/x-matrix.ts";
import type { EventId, ServerName } from "../../src/matrix/identifiers.ts";
import { parseJson } from "../../src/matrix/json.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { verifyJsonSignature } from "../../src/matrix/signatures.ts";
import type { Answer } from "./answer.ts";
import { loopbackCertificate } from "./certificate.ts";
import type { Front, RequestRecord } from "./front.ts";
import { identityOf } from "./identities.ts";
import { remoteKeysOf } from "./outbound.ts";
import { matchRoute } from "./routes/routes.ts";
import type { Match } from "./routes/routes.ts";
import { sendAnswer } from "./send-answer.ts";
import { newSwitches, troublesFor, untilLetGo } from "./trouble.ts";
import type { Trouble } from "./trouble.ts";
import { keyLookupOf } from "./world.ts";
import type { World } from "./world.ts";

/** Opens one more server of the resident on a free loopback port. */
export async function openFront(world: World): Promise<Front> {
  const server = world.tls ? createTlsServer(await loopbackCertificate()) : createPlainServer();
  const port = await listenOn(server, 0);
  const serverName = `localhost:${port}`;
  const front: Front = {
    serverName,
    port,
    key: identityOf(world.seed, serverName),
    user: `@resident:${serverName}`,
    switches: newSwitches(),
    requests: [],
    transactions: [],
    close: async () => {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
    listen: async () => {
      await listenOn(server, port);
    },
  };
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    void serve(world, front, { request, response });
  });
  world.fronts.push(front);
  return front;
}

async function listenOn(server: Server, port: number): Promise<number> {
  // Without a host Node listens on :: and, by it, on 127.0.0.1 too: `localhost` may be either.
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, resolve);
  });
  return (server.address() as AddressInfo).port;
}

interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
}

async function serve(world: World, front: Front, { request, response }: Exchange): Promise<void> {
  const { method = "", url = "" } = request;
  const record: RequestRecord & { origin: ServerName | undefined; endpoint: RequestRecord["endpoint"] } = {
    endpoint: "unknown",
    method,
    uri: url,
    origin: undefined,
    at: Date.now(),
    status: undefined,
    milliseconds: undefined,
  };
  front.requests.push(record);
  response.on("close", () => {
    record.status = response.writableFinished ? response.statusCode : 0;
    record.milliseconds = Date.now() - record.at;
  });
  let troubles: readonly Trouble[] = [];
  try {
    const { pathname, searchParams: query } = new URL(url, "http://front");
    const match = matchRoute(method, pathname);
    if (match === undefined) throw new MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request");
    record.endpoint = match.route.endpoint;
    const eventId = (match.path["event"] ?? query.get("event_id") ?? undefined) as EventId | undefined;
    const claimed = parseXMatrix(request.headers.authorization ?? "")?.origin;
    troubles = troublesFor(front.switches, { endpoint: match.route.endpoint, eventId, origin: claimed });
    const text = await readBody(request);
    const body = text === "" ? undefined : parseJson(text);
    const origin = await checkedOrigin(world, front, { request, match, body });
    record.origin = origin;
    if (await refuses(troubles, response)) return;
    const visit = { world, front, endpoint: match.route.endpoint, path: match.path, query, origin, body, troubles };
    const answer = await match.route.handler(visit);
    await untilLetGo(troubles);
    await sendAnswer(response, answer, troubles);
  } catch (error) {
    const answer = errorAnswer(error);
    if (response.headersSent) response.destroy();
    else await sendAnswer(response, answer, troubles);
  }
}

function errorAnswer(error: unknown): Answer {
  if (error instanceof MatrixError) return { status: error.status, body: matrixErrorBody(error) };
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`resident: ${message}\n`);
  return { status: 500, body: { errcode: "M_UNKNOWN", error: message } };
}

/** The troubles in which no handler is asked at all. */
async function refuses(troubles: readonly Trouble[], response: ServerResponse): Promise<boolean> {
  for (const trouble of troubles) {
    switch (trouble.kind) {
      case "slow":
        await new Promise((resolve) => setTimeout(resolve, trouble.delayMs ?? 0));
        break;
      case "hang":
        return true;
      case "reset":
        response.socket?.destroy();
        return true;
      case "raw":
        await trouble.answer(response);
        return true;
      case "garbage":
        response.writeHead(200, { "content-type": "application/json" }).end(trouble.text ?? '{"pdus": [{"not": ');
        return true;
      case "refuse": {
        const { status, errcode = "M_FORBIDDEN", error = "Trouble", extra = {} } = trouble;
        await sendAnswer(response, { status, body: { ...extra, errcode, error } }, []);
        return true;
      }
      default:
    }
  }
  return false;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

interface Claim {
  readonly request: IncomingMessage;
  readonly match: Match;
  readonly body: JsonValue | undefined;
}

/** The server that signed the request, its key fetched from itself. */
async function checkedOrigin(world: World, front: Front, claim: Claim): Promise<ServerName | undefined> {
  const { request, match, body } = claim;
  if (match.route.open) return undefined;
  const credentials = parseXMatrix(request.headers.authorization ?? "");
  if (credentials === undefined) throw new MatrixError(401, "M_UNAUTHORIZED", "no X-Matrix header");
  const { origin, keyId, destination } = credentials;
  if (!world.verifyRequests) return origin;
  if (destination !== front.serverName) throw new MatrixError(401, "M_UNAUTHORIZED", "meant for another server");
  await remoteKeysOf(world, origin, keyId).catch((error: unknown) => {
    throw new MatrixError(401, "M_UNAUTHORIZED", `no keys of ${origin}: ${String(error)}`);
  });
  const signed = signedRequestObject(
    { method: request.method ?? "", uri: request.url ?? "", origin, destination, content: body },
    credentials,
  );
  const key = keyLookupOf(world)(origin, keyId);
  if (key === undefined || !verifyJsonSignature(signed, origin, keyId, key.publicKey)) {
    throw new MatrixError(401, "M_UNAUTHORIZED", "bad signature");
  }
  return origin;
}
