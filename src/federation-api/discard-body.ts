import type { IncomingMessage } from "node:http";

/** Long enough for the other side to see our answer: a connection that is closed at once takes the answer with it. */
const LINGER_MS = 1_000;

/** By then the answer has been seen by whoever listens. */
const LINGER_BYTES = 64 * 1_048_576;

/** Of a request that is refused before all of it has come: the rest is read and dropped for a moment, then cut off. */
export function discardBody(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  const cutOff = setTimeout(() => request.destroy(), LINGER_MS);
  request.once("close", () => clearTimeout(cutOff));
  let discarded = 0;
  request.on("data", (chunk: Uint8Array) => {
    discarded += chunk.length;
    if (discarded > LINGER_BYTES) request.destroy();
  });
}
