import { MatrixError } from "../federation-api/matrix-error.ts";
import { parseXMatrix, signedRequestObject } from "../federation-api/x-matrix.ts";
import type { XMatrixCredentials } from "../federation-api/x-matrix.ts";
import type { KeyId, ServerName } from "../matrix/identifiers.ts";
import type { JsonValue } from "../matrix/json.ts";
import { verifyJsonSignature } from "../matrix/signatures.ts";
import type { VerifyKey } from "../matrix/signatures.ts";
import type { RoomsContext } from "../rooms/context.ts";

/** One header for each key that a server signs with: more than a few are an attempt to keep us busy. */
const MAX_HEADERS = 8;

export interface ReceivedRequest {
  readonly method: string;
  /** Path and query exactly as they were sent. */
  readonly uri: string;
  readonly content: JsonValue | undefined;
}

/** What the Authorization headers of a request claim: one origin, and at least one signature of it. */
interface ClaimedOrigin {
  readonly origin: ServerName;
  readonly signatures: readonly XMatrixCredentials[];
}

function unauthorized(message: string): MatrixError {
  return new MatrixError(401, "M_UNAUTHORIZED", message);
}

/**
 * Reads the Authorization headers, before anything is spent on the request.
 *
 * @throws MatrixError 401 M_UNAUTHORIZED that says which header is wrong, and how
 * @see https://spec.matrix.org/v1.19/server-server-api/#request-authentication
 */
export function readClaimedOrigin(ourName: ServerName, headers: readonly string[]): ClaimedOrigin {
  if (headers.length === 0) throw unauthorized("The request has no Authorization header");
  if (headers.length > MAX_HEADERS) throw unauthorized("The request has too many Authorization headers");
  const signatures = headers.map((header) => readCredentials(ourName, header));
  const origins = new Set(signatures.map(({ origin }) => origin));
  const [origin] = origins;
  if (origin === undefined || origins.size > 1) {
    throw unauthorized("The Authorization headers name different origins");
  }
  return { origin, signatures };
}

function readCredentials(ourName: ServerName, header: string): XMatrixCredentials {
  if (!/^X-Matrix\s/i.test(header)) throw unauthorized("The Authorization header is not of the X-Matrix scheme");
  const credentials = parseXMatrix(header);
  if (credentials === undefined) {
    throw unauthorized("The X-Matrix header needs origin, key and sig (and may name its destination)");
  }
  if (credentials.destination !== undefined && credentials.destination !== ourName) {
    throw unauthorized(`The request is meant for ${credentials.destination}, this is ${ourName}`);
  }
  if (!credentials.keyId.startsWith("ed25519:")) {
    throw unauthorized(`The signature's algorithm is not supported: ${credentials.keyId}`);
  }
  return credentials;
}

/**
 * Checks that one of the claimed signatures is the origin's, by a key that is valid now.
 *
 * @throws MatrixError 401 M_UNAUTHORIZED
 */
export async function authenticateRequest(
  ctx: Pick<RoomsContext, "keyRing" | "now">,
  request: ReceivedRequest,
  claimed: ClaimedOrigin,
): Promise<void> {
  const { origin, signatures } = claimed;
  const keyIds = new Set<KeyId>(signatures.map(({ keyId }) => keyId));
  const now = ctx.now();
  const lookUp = await ctx.keyRing.keysFor(new Map([[origin, keyIds]]), now);
  const failures: string[] = [];
  for (const credentials of signatures) {
    const key = lookUp(origin, credentials.keyId);
    const failure = failureOf(request, credentials, usableKey(key, now));
    if (failure === undefined) return;
    failures.push(`${credentials.keyId}: ${failure}`);
  }
  throw unauthorized(`The request is not signed by ${origin} (${failures.join("; ")})`);
}

type UsableKey = { readonly key: VerifyKey } | { readonly problem: string };

function usableKey(key: VerifyKey | undefined, now: number): UsableKey {
  if (key === undefined) return { problem: "the key could not be had" };
  if (key.expiredTs !== undefined) return { problem: "the key is one that the server no longer uses" };
  if (key.validUntilTs < now) return { problem: "the key is no longer valid" };
  return { key };
}

function failureOf(request: ReceivedRequest, credentials: XMatrixCredentials, usable: UsableKey): string | undefined {
  if ("problem" in usable) return usable.problem;
  const { origin, destination, keyId } = credentials;
  // A sender that leaves the destination out of the header leaves it out of what it signs, too.
  const signable = { ...request, origin, ...(destination === undefined ? {} : { destination }) };
  const object = signedRequestObject(signable, credentials);
  return verifyJsonSignature(object, origin, keyId, usable.key.publicKey) ? undefined : "the signature is wrong";
}
