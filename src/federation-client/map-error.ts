import { errors } from "undici";
import type { ServerName } from "../matrix/identifiers.ts";
import { FederationFailure } from "./failures.ts";
import type { FederationFailureKind } from "./failures.ts";

/** How far a request had come: an error means another thing once the answer has begun. */
export type RequestPhase = "connecting" | "reading";

const CERTIFICATE_CODE =
  /^(?:ERR_TLS_|ERR_SSL_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|INVALID_CA|HOSTNAME_MISMATCH)/;

const REASONS: Readonly<Record<string, string>> = {
  ENOTFOUND: "its name has no address",
  EAI_AGAIN: "its name could not be looked up",
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "there is no route to its address",
  ENETUNREACH: "there is no route to its address",
  ETIMEDOUT: "no connection in time",
  EPIPE: "the connection was lost",
  UND_ERR_CONNECT_TIMEOUT: "no connection in time",
  UND_ERR_SOCKET: "the connection was closed before it answered",
};

function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : "";
}

/** One of several addresses may have failed for a better reason than the last: the first stands for all. */
function firstCause(error: unknown): unknown {
  return error instanceof AggregateError && error.errors.length > 0 ? firstCause(error.errors[0]) : error;
}

interface Classification {
  readonly kind: FederationFailureKind;
  readonly reason: string;
}

function classifyTimeout(error: unknown, phase: RequestPhase): Classification | undefined {
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return { kind: "timeout", reason: phase === "connecting" ? "no answer in time" : "the answer took too long" };
  }
  if (error instanceof errors.HeadersTimeoutError) return { kind: "timeout", reason: "no answer in time" };
  if (error instanceof errors.BodyTimeoutError) return { kind: "timeout", reason: "the answer stopped coming" };
  return undefined;
}

function classify(error: unknown, phase: RequestPhase): Classification {
  const message = error instanceof Error ? error.message : String(error);
  const code = codeOf(error);
  const timeout = classifyTimeout(error, phase);
  if (timeout !== undefined) return timeout;
  if (CERTIFICATE_CODE.test(code)) return { kind: "unreachable", reason: `its certificate is refused: ${message}` };
  if (error instanceof errors.HTTPParserError || code === "UND_ERR_HEADERS_OVERFLOW") {
    return { kind: "bad-response", reason: `the answer is not HTTP as it should be: ${message}` };
  }
  if (phase === "reading") return { kind: "bad-response", reason: `the answer broke off: ${message}` };
  return { kind: "unreachable", reason: REASONS[code] ?? message };
}

/** What an error of the network means for the server that was asked. */
export function failureOf(server: ServerName, error: unknown, phase: RequestPhase): FederationFailure {
  if (error instanceof FederationFailure) return error;
  const { kind, reason } = classify(firstCause(error), phase);
  return new FederationFailure({ kind, server, reason, cause: error });
}
