import type { Response } from "express";
import { stringifyJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/** Events may hold numbers that only their own text keeps, so Express's `json` must not write them. */
export function sendJson(response: Response, status: number, body: JsonValue): void {
  if (response.headersSent || response.destroyed) {
    return;
  }
  response.status(status).type("application/json").send(stringifyJson(body));
}
