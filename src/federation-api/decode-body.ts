import { pipeline } from "node:stream";
import type { Readable, Transform } from "node:stream";
import { createBrotliDecompress, createGunzip, createInflate } from "node:zlib";

/** The answer holds more bytes, once decoded, than the call allows. */
export class BodyTooLargeError extends Error {
  override readonly name = "BodyTooLargeError";

  constructor(maxBytes: number) {
    super(`the answer is larger than ${maxBytes} bytes`);
  }
}

/** The answer's encoding is none that we asked for. */
export class UnknownEncodingError extends Error {
  override readonly name = "UnknownEncodingError";

  constructor(encoding: string) {
    super(`the answer is encoded as "${encoding}", which was not asked for`);
  }
}

export const ACCEPTED_ENCODINGS = "gzip, deflate, br";

export function decoderOf(encoding: string): Transform | undefined {
  switch (encoding.trim().toLowerCase()) {
    case "":
    case "identity":
      return undefined;
    case "gzip":
    case "x-gzip":
      return createGunzip();
    case "deflate":
      return createInflate();
    case "br":
      return createBrotliDecompress();
    default:
      throw new UnknownEncodingError(encoding);
  }
}

/**
 * To be called as soon as there is a body: who reads it is thrown its errors, but one that comes before, or after it
 * was left unread, would end the process.
 */
export function ignoreLateErrors(body: Readable): void {
  body.on("error", () => undefined);
}

/**
 * The bytes of a body, decompressed and never more than `maxBytes` of them: a small bomb is cut off while it unfolds.
 * The connection is read no faster than the bytes are taken.
 *
 * @throws BodyTooLargeError, UnknownEncodingError, and what the stream or the decoder throws
 */
export async function* decodeBody(
  body: Readable,
  contentEncoding: string,
  maxBytes: number,
): AsyncGenerator<Uint8Array, void, void> {
  const decoder = decoderOf(contentEncoding);
  // The callback takes errors that the loop below throws anyway; without it they would be unhandled.
  const source = decoder === undefined ? body : pipeline(body, decoder, () => undefined);
  let total = 0;
  for await (const chunk of source as AsyncIterable<Uint8Array>) {
    total += chunk.byteLength;
    if (total > maxBytes) throw new BodyTooLargeError(maxBytes);
    yield chunk;
  }
}
