import type { IncomingMessage } from "node:http";
import type { Readable } from "node:stream";
import type { BodyBudget, BodyShare } from "./body-budget.ts";
import { createByteCollector } from "./byte-collector.ts";
import { decoderOf, UnknownEncodingError } from "./decode-body.ts";
import { MatrixError } from "./matrix-error.ts";

interface BodyLimits {
  /** Of the body once it is decompressed. */
  readonly maxBytes: number;
  readonly share?: BodyShare;
}

function cutOff(): MatrixError {
  return new MatrixError(400, "M_NOT_JSON", "The body was cut off");
}

function tooLarge(maxBytes: number): MatrixError {
  return new MatrixError(413, "M_TOO_LARGE", `The body is too large: more than ${maxBytes} bytes`);
}

/** The other side is asked to come again: its request may be a good one. */
function noRoom(): MatrixError {
  const error = "Too many large requests arrive at once, or this one arrives too slowly";
  return new MatrixError(503, "M_LIMIT_EXCEEDED", error, { retry_after_ms: 5_000 });
}

/** The bytes of a body, decompressed. The request itself is never destroyed, since it has to be answered. */
function sourceOf(request: IncomingMessage): Readable {
  try {
    const decoder = decoderOf(request.headers["content-encoding"] ?? "");
    if (decoder === undefined) return request;
    request.once("error", () => decoder.destroy(cutOff()));
    return request.pipe(decoder);
  } catch (error) {
    if (!(error instanceof UnknownEncodingError)) throw error;
    throw new MatrixError(415, "M_NOT_JSON", "The body's Content-Encoding is not supported");
  }
}

/** What is thrown while a body is read, as the refusal that it means. */
function refusalOf(error: unknown): unknown {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ECONNRESET" || code === "ERR_STREAM_PREMATURE_CLOSE") return cutOff();
  if (typeof code !== "string" || !code.startsWith("Z_")) return error;
  return new MatrixError(400, "M_NOT_JSON", "The body does not match its Content-Encoding");
}

/**
 * Reads a body of at most so many bytes; empty where there is none.
 *
 * @throws MatrixError 400 for one that is cut off or does not match its encoding, 413 for too large a one, 415 for an
 *   unknown encoding, 503 where the share has no room for it
 */
export async function readRequestBody(request: IncomingMessage, limits: BodyLimits): Promise<Uint8Array> {
  const { maxBytes, share } = limits;
  if (Number(request.headers["content-length"] ?? 0) > maxBytes) throw tooLarge(maxBytes);
  const collector = createByteCollector();
  try {
    const source = sourceOf(request).iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>;
    for await (const chunk of source) {
      if (collector.length + chunk.length > maxBytes) throw tooLarge(maxBytes);
      if (share?.take(chunk.length) === false) throw noRoom();
      collector.add(chunk);
    }
    share?.read();
    return collector.bytes();
  } catch (error) {
    throw refusalOf(error);
  }
}

/**
 * Reads a body within what all bodies together may take, and hands it to `use`; its share is given back afterwards.
 *
 * @throws MatrixError as {@link readRequestBody}, also 503 where the body makes way for others; what `use` throws
 */
export async function withRequestBody<T>(
  request: IncomingMessage,
  { maxBytes, budget }: { readonly maxBytes: number; readonly budget: BodyBudget },
  use: (body: Uint8Array) => Promise<T>,
): Promise<T> {
  let makeWay: () => void = () => undefined;
  const madeWay = new Promise<never>((_resolve, reject) => (makeWay = () => reject(noRoom())));
  const share = budget.open(makeWay);
  try {
    // A reading that has lost the race ends with the connection.
    return await use(await Promise.race([readRequestBody(request, { maxBytes, share }), madeWay]));
  } finally {
    share.close();
  }
}
