import type { JsonObject } from "../matrix/json.ts";
import type { TransportLimits, TransportRequest } from "./transport.ts";

export const SECOND_MS = 1000;
export const MINUTE_MS = 60 * SECOND_MS;
export const MIB = 1024 * 1024;

/** For an answer that needs no search. */
export const QUICK: Omit<TransportLimits, "signal"> = {
  timeoutMs: 30 * SECOND_MS,
  idleMs: 30 * SECOND_MS,
  maxBytes: 4 * MIB,
};
/** For a hundred events, even if each byte of theirs is written as an escape, or the keys of many servers. */
export const MIDDLING: Omit<TransportLimits, "signal"> = {
  timeoutMs: 2 * MINUTE_MS,
  idleMs: MINUTE_MS,
  maxBytes: 48 * MIB,
};
/** For a whole state: the resident may think for minutes over the largest rooms, whose state is about 100 MB. */
export const LARGE: Omit<TransportLimits, "signal"> = {
  timeoutMs: 15 * MINUTE_MS,
  idleMs: 5 * MINUTE_MS,
  maxBytes: 1024 * MIB,
};

export function get(path: string): TransportRequest {
  return { method: "GET", path, signed: true };
}

export function put(path: string, content: JsonObject): TransportRequest {
  return { method: "PUT", path, content, signed: true };
}

export function post(path: string, content: JsonObject): TransportRequest {
  return { method: "POST", path, content, signed: true };
}
