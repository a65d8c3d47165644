import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Response } from "express";
import type { LongJson } from "./long-json.ts";

/** In characters. What is no longer is held as a whole: then a failure on the way can still be told as one. */
const AT_ONCE = 1_048_576;

/** In characters: a long answer of many small pieces is not written one by one. */
const PIECE = 65_536;

/**
 * Answers 200 with a text that is written while it is read, no faster than the receiver takes it. Behind the beginning a
 * failure can only break the connection off: the receiver sees that the text is not complete.
 *
 * @throws whatever reading throws, and ERR_STREAM_PREMATURE_CLOSE when the receiver goes away
 */
export async function sendLongJson(response: Response, json: LongJson): Promise<void> {
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
  await pipeline(Readable.from(inPieces(beginning, json), { highWaterMark: 2 }), response);
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
