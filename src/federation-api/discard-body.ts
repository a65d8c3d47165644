import type { IncomingMessage } from "node:http";

/** Long enough for the other side to see our answer: a connection that is closed at once takes the answer with it. */
const LINGER_MS = 1_000;

/** Of a request that is refused before all of it has come: the rest is read and dropped for a moment, then cut off. */
export function discardBody(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  const cutOff = setTimeout(() => request.destroy(), LINGER_MS);
  request.once("close", () => clearTimeout(cutOff));
  request.resume();
}
