import type { ErrorRequestHandler, Request, Response } from "express";
import type { Logger } from "pino";
import { discardBody } from "../federation-api/discard-body.ts";
import { MatrixError, matrixErrorBody } from "../federation-api/matrix-error.ts";
import { isDisconnection } from "../federation-api/send-long-json.ts";
import { stringifyJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/** Events may hold numbers that only their own text keeps, so Express's `json` must not write them. */
export function sendJson(response: Response, status: number, body: JsonValue): void {
  if (response.headersSent || response.destroyed) return;
  response.status(status).type("application/json").send(stringifyJson(body));
}

export function unrecognized(_request: Request, response: Response): void {
  sendError(response, new MatrixError(404, "M_UNRECOGNIZED", "Unrecognized request"));
}

export function methodNotAllowed(request: Request, response: Response): void {
  sendError(response, new MatrixError(405, "M_UNRECOGNIZED", `${request.method} is not allowed here`));
}

/** Answers every error as JSON; what is not an expected refusal is logged and told to nobody. */
export function answerError(logger: Logger): ErrorRequestHandler {
  // Express knows an error handler by its four parameters.
  return (error: unknown, request, response, _next) => {
    if (isDisconnection(error) && response.destroyed) return;
    const expected = expectedError(error);
    if (expected === undefined) {
      logger.error({ err: error, method: request.method, path: request.path }, "a federation request failed");
    }
    if (response.headersSent) response.destroy();
    sendError(response, expected ?? new MatrixError(500, "M_UNKNOWN", "Internal server error"));
    discardBody(request);
  };
}

function sendError(response: Response, error: MatrixError): void {
  sendJson(response, error.status, matrixErrorBody(error));
}

function expectedError(error: unknown): MatrixError | undefined {
  if (error instanceof MatrixError) return error;
  if (error instanceof URIError) return new MatrixError(400, "M_INVALID_PARAM", "The URI holds a bad percent-encoding");
  return undefined;
}
