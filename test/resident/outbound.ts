import { Agent, request } from "undici";
import { paths } from "../../src/federation-api/endpoints.ts";
import { authorizationHeader } from "../../src/federation-api/x-matrix.ts";
import type { KeyId, ServerName } from "../../src/matrix/identifiers.ts";
import { isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { VerifyKey } from "../../src/matrix/signatures.ts";
import { verifyJsonSignature } from "../../src/matrix/signatures.ts";
import { identityOf } from "./identities.ts";
import type { World } from "./world.ts";

const agent = new Agent({ connect: { rejectUnauthorized: false }, keepAliveTimeout: 1000 });

export interface Call {
  readonly origin: ServerName;
  readonly destination: ServerName;
  readonly method: "GET" | "PUT" | "POST";
  readonly uri: string;
  readonly content?: JsonValue;
}

export interface Reply {
  readonly status: number;
  readonly body: JsonValue;
}

/** A signed request of one of our servers to a server that joined. Its name must hold its port: there is no discovery. */
export async function callServer(world: World, call: Call): Promise<Reply> {
  const { origin, destination, method, uri, content } = call;
  const authorization = authorizationHeader(call, identityOf(world.seed, origin));
  const scheme = world.tls ? "https" : "http";
  const response = await request(`${scheme}://${destination}${uri}`, {
    dispatcher: agent,
    method,
    headers: { authorization, ...(content === undefined ? {} : { "content-type": "application/json" }) },
    ...(content === undefined ? {} : { body: stringifyJson(content) }),
    headersTimeout: 60_000,
    bodyTimeout: 60_000,
  });
  const text = await response.body.text();
  return { status: response.statusCode, body: text === "" ? null : parseJson(text) };
}

/** The keys of a server that is not ours, fetched once; again where `wanted` is not among them. */
export async function remoteKeysOf(world: World, server: ServerName, wanted: KeyId): Promise<void> {
  if (world.remoteKeys.get(server)?.has(wanted) === true) return;
  const origin = world.fronts[0]?.serverName ?? "";
  const { status, body } = await callServer(world, {
    origin,
    destination: server,
    method: "GET",
    uri: paths.serverKeys(),
  });
  if (status !== 200 || !isJsonObject(body)) throw new Error(`${server} answered its keys with ${status}`);
  world.remoteKeys.set(server, readServerKeys(server, body));
}

function readServerKeys(server: ServerName, body: JsonObject): Map<KeyId, VerifyKey> {
  const keys = new Map<KeyId, VerifyKey>();
  const listed = body["verify_keys"];
  const validUntilTs = Number(body["valid_until_ts"]);
  for (const [keyId, entry] of Object.entries(isJsonObject(listed) ? listed : {})) {
    if (!isJsonObject(entry) || typeof entry["key"] !== "string") continue;
    const publicKey = Buffer.from(entry["key"], "base64");
    if (!verifyJsonSignature(body, server, keyId as KeyId, publicKey)) {
      throw new Error(`${server} did not sign its keys`);
    }
    keys.set(keyId as KeyId, { publicKey, validUntilTs });
  }
  return keys;
}
