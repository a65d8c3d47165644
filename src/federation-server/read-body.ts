import express from "express";
import type { Request, Response } from "express";
import { MatrixError } from "../federation-api/matrix-error.ts";
import { JsonSyntaxError, parseJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/**
 * Reads a body as JSON, whatever its Content-Type says, without loss of numbers: the request's signature and the
 * hashes of the events in it depend on how they were written.
 *
 * @param maxBytes of the body once it is decompressed
 * @returns undefined where there is no body
 */
export async function readBody(request: Request, response: Response, maxBytes: number): Promise<JsonValue | undefined> {
  await new Promise<void>((resolve, reject) => {
    express.raw({ type: () => true, limit: maxBytes })(request, response, (error?: unknown) => {
      if (error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error("the body could not be read", { cause: error }));
    });
  });
  const raw: unknown = request.body;
  return Buffer.isBuffer(raw) && raw.length > 0 ? parse(raw) : undefined;
}

function parse(raw: Buffer): JsonValue {
  try {
    return parseJson(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof TypeError) {
      throw new MatrixError(400, "M_NOT_JSON", `The body is not JSON: ${error.message}`);
    }
    throw error;
  }
}
