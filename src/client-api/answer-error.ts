import type { ErrorRequestHandler, Request, Response } from "express";
import type { Logger } from "pino";
import { discardBody } from "../federation-api/discard-body.ts";
import { MatrixError, matrixErrorBody } from "../federation-api/matrix-error.ts";
import { isDisconnection } from "../federation-api/send-long-json.ts";
import { FederationFailure } from "../federation-client/failures.ts";
import { sendJson } from "./send-json.ts";

export function unrecognized(_request: Request, response: Response): void {
  sendMatrixError(response, new MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request"));
}

export function methodNotAllowed(request: Request, response: Response): void {
  sendMatrixError(response, new MatrixError(405, "M_UNRECOGNIZED", `${request.method} is not allowed here`));
}

/** Answers every error as JSON; what is not an expected refusal is logged and told to nobody. */
export function answerError(logger: Logger): ErrorRequestHandler {
  // Express knows an error handler by its four parameters.
  return (error: unknown, request, response, _next) => {
    if (isDisconnection(error) && response.destroyed) return;
    const expected = expectedError(error);
    if (!expected) {
      logger.error({ err: error, method: request.method, path: request.path }, "a client request failed");
    }
    // What has begun can't be taken back: the client sees that the rest is missing.
    if (response.headersSent) response.destroy();
    sendMatrixError(response, expected ?? new MatrixError(500, "M_UNKNOWN", "Internal server error"));
    discardBody(request);
  };
}

function sendMatrixError(response: Response, error: MatrixError): void {
  const retryAfterMs = error.extra["retry_after_ms"];
  if (typeof retryAfterMs === "number" && !response.headersSent) {
    response.set("Retry-After", String(Math.ceil(retryAfterMs / 1000)));
  }
  sendJson(response, error.status, matrixErrorBody(error));
}

function expectedError(error: unknown): MatrixError | undefined {
  if (error instanceof MatrixError) {
    return error;
  }
  if (error instanceof FederationFailure) {
    return new MatrixError(error.kind === "timeout" ? 504 : 502, "M_UNKNOWN", error.message);
  }
  if (error instanceof URIError) {
    return new MatrixError(400, "M_INVALID_PARAM", "The path holds a bad percent-encoding");
  }
  return undefined;
}
