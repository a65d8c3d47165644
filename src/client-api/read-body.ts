import express from "express";
import type { NextFunction, Request, RequestHandler, Response } from "express";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { JsonSyntaxError, parseJson } from "../matrix/json.ts";

/** An event may have 65,536 bytes; a createRoom brings some dozens of them. */
const MAX_BODY_BYTES = 1_048_576;

/** Reads every body as JSON, whatever its Content-Type says: browsers and old clients leave it out. */
export function readBody(): RequestHandler[] {
  return [express.raw({ type: () => true, limit: MAX_BODY_BYTES }), parseRawBody];
}

function parseRawBody(request: Request, _response: Response, next: NextFunction): void {
  const raw: unknown = request.body;
  request.body = Buffer.isBuffer(raw) && raw.length > 0 ? parse(raw) : undefined;
  next();
}

function parse(raw: Buffer): unknown {
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof TypeError) {
      throw new MatrixError(400, "M_NOT_JSON", `The body is not JSON: ${error.message}`);
    }
    throw error;
  }
}
