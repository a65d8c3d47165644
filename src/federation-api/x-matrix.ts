import { isKeyId, isServerName } from "../matrix/identifiers.ts";
import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import { isJsonObject } from "../matrix/json.ts";
import type { JsonObject, JsonValue } from "../matrix/json.ts";
import { signJson } from "../matrix/signatures.ts";
import type { SigningKey } from "../matrix/signatures.ts";

/** The parameters of an `Authorization: X-Matrix` header. */
export interface XMatrixCredentials {
  readonly origin: ServerName;
  /** Absent from old servers; a receiver accepts that, but refuses one that names another server. */
  readonly destination?: ServerName;
  readonly keyId: KeyId;
  /** Unpadded base64. */
  readonly signature: string;
}

/** A request as it is signed. */
export interface SignableRequest {
  readonly method: string;
  /** Path and query exactly as sent. */
  readonly uri: string;
  readonly origin: ServerName;
  readonly destination?: ServerName;
  /** The JSON body; undefined where there is none. */
  readonly content?: JsonValue | undefined;
}

/**
 * The object whose signature stands in the header.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#request-authentication
 */
function requestObject(request: SignableRequest): JsonObject {
  const { method, uri, origin, destination, content } = request;
  return {
    method,
    uri,
    origin,
    ...(destination === undefined ? {} : { destination }),
    ...(content === undefined ? {} : { content }),
  };
}

/** The object of a received request with its signature in place, ready for `verifyJsonSignature`. */
export function signedRequestObject(request: SignableRequest, credentials: XMatrixCredentials): JsonObject {
  const signatures = { [credentials.origin]: { [credentials.keyId]: credentials.signature } };
  return { ...requestObject(request), signatures };
}

/** The header's value for a request of ours. */
export function authorizationHeader(
  request: SignableRequest & { readonly destination: ServerName },
  key: SigningKey,
): string {
  const signatures = signJson(requestObject(request), request.origin, key)["signatures"];
  const ours = isJsonObject(signatures) ? signatures[request.origin] : undefined;
  const signature = isJsonObject(ours) ? ours[key.keyId] : undefined;
  if (typeof signature !== "string") throw new TypeError("signJson left no signature");
  return formatXMatrix({ origin: request.origin, destination: request.destination, keyId: key.keyId, signature });
}

export function formatXMatrix(credentials: XMatrixCredentials): string {
  const { origin, destination, keyId, signature } = credentials;
  const to = destination === undefined ? "" : `,destination="${destination}"`;
  return `X-Matrix origin="${origin}"${to},key="${keyId}",sig="${signature}"`;
}

// RFC 9110, section 11.2: a token or a quoted string, white space around `=` and `,`. Matrix also allows colons in
// unquoted values, since old servers send them (`key=ed25519:1`); a base64 signature needs `/` and `+`.
const PARAMETER = /\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|$)/y;
const MAX_HEADER_LENGTH = 4096;

function parseParameters(text: string): ReadonlyMap<string, string> | undefined {
  const parameters = new Map<string, string>();
  PARAMETER.lastIndex = 0;
  while (PARAMETER.lastIndex < text.length) {
    const match = PARAMETER.exec(text);
    if (match === null) return undefined;
    const [, name = "", quoted, bare = ""] = match;
    parameters.set(name.toLowerCase(), quoted === undefined ? bare : quoted.replaceAll(/\\(.)/g, "$1"));
  }
  return parameters;
}

/** Reads an Authorization header; undefined if it is not a well-formed X-Matrix one. */
export function parseXMatrix(header: string): XMatrixCredentials | undefined {
  const scheme = /^X-Matrix\s+/i.exec(header);
  if (scheme === null || header.length > MAX_HEADER_LENGTH) return undefined;
  const parameters = parseParameters(header.slice(scheme[0].length));
  const [origin, keyId, signature] = ["origin", "key", "sig"].map((name) => parameters?.get(name));
  if (!isServerName(origin) || !isKeyId(keyId) || !signature) return undefined;
  const destination = parameters?.get("destination");
  if (destination === undefined) return { origin, keyId, signature };
  return isServerName(destination) ? { origin, destination, keyId, signature } : undefined;
}
