import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Response } from "express";
import type { LongJson } from "./long-json.ts";

/** In characters. What is no longer is held as a whole: then a failure on the way can still be told as one. */
const AT_ONCE = 1_048_576;

/** In characters: a long answer of many small pieces is not written one by one. */
const PIECE = 65_536;

/** As long as a request may take to arrive. */
const TAKES_WITHIN_MS = 120_000;

/**
 * Answers 200 with a text that is written while it is read, no faster than the receiver takes it. Behind the beginning a
 * failure can only break the connection off: the receiver sees that the text is not complete. That is also
 * what a receiver gets that takes nothing any more.
 *
 * @param takesWithinMs the connection is broken off when nothing was taken for so long
 * @throws whatever reading throws, and ERR_STREAM_PREMATURE_CLOSE when the receiver goes away
 */
export async function sendLongJson(
  response: Response,
  json: LongJson,
  takesWithinMs: number = TAKES_WITHIN_MS,
): Promise<void> {
  let beginning = "";
  for (;;) {
    const next = await json.next();
    if (response.destroyed) {
      await json.return();
      return;
    }
    if (next.done === true) {
      response.status(200).type("application/json").send(beginning);
      return;
    }
    beginning += next.value;
    if (beginning.length > AT_ONCE) break;
  }
  response.status(200).type("application/json");
  breakOffWhenStalled(response, takesWithinMs);
  await pipeline(Readable.from(inPieces(beginning, json), { highWaterMark: 2 }), response);
}

/** Nobody may hold an answer's memory by reading nothing of it. Whatever goes out starts the time anew. */
function breakOffWhenStalled(response: Response, takesWithinMs: number): void {
  response.setTimeout(takesWithinMs, () => {
    // Where nothing waits for the receiver, it is the reading that takes its time.
    if (response.writableLength > 0) response.destroy();
  });
  // Before Node sets the connection's time to wait for its next request.
  response.prependOnceListener("finish", () => response.setTimeout(0));
}

async function* inPieces(beginning: string, rest: LongJson): LongJson {
  yield beginning;
  let piece = "";
  for await (const text of rest) {
    if (piece.length >= PIECE) {
      yield piece;
      piece = "";
    }
    piece += text;
  }
  yield piece;
}

/** The other side has gone before it had its whole answer: nobody is left to tell, and nothing to log. */
export function isDisconnection(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_STREAM_PREMATURE_CLOSE";
}
