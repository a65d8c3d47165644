import type { NextFunction, Request, RequestHandler, Response } from "express";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { readRequestBody } from "../federation-api/read-request-body.ts";
import { JsonSyntaxError, MAX_FOREIGN_VALUES, parseJson } from "../matrix/json.ts";

/** An event may have 65,536 bytes; a createRoom brings some dozens of them. */
const MAX_BODY_BYTES = 1_048_576;

/** Reads every body as JSON, whatever its Content-Type says: browsers and old clients leave it out. */
export function readBody(): RequestHandler {
  return async (request: Request, _response: Response, next: NextFunction) => {
    const raw = await readRequestBody(request, { maxBytes: MAX_BODY_BYTES });
    request.body = raw.length > 0 ? parse(raw) : undefined;
    next();
  };
}

function parse(raw: Uint8Array): unknown {
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(raw), MAX_FOREIGN_VALUES);
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof TypeError) {
      throw new MatrixError(400, "M_NOT_JSON", `The body is not JSON: ${error.message}`);
    }
    throw error;
  }
}
