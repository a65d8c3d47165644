import type { JsonValue } from "../../src/matrix/json.ts";

/** A JSON answer, or the pieces of one that is too long to be made in one go. */
export type Answer =
  | { readonly status: number; readonly body: JsonValue }
  | { readonly status: 200; readonly pieces: Iterable<string> };

const PIECE = 65_536;

/** An object whose members are texts of JSON already, or lists of such. Comes in pieces of some 64 KiB. */
export function* jsonPieces(members: Readonly<Record<string, string | Iterable<string>>>): Generator<string> {
  let piece = "{";
  let first = true;
  for (const [name, member] of Object.entries(members)) {
    piece += `${first ? "" : ","}${JSON.stringify(name)}:`;
    first = false;
    if (typeof member === "string") {
      piece += member;
      continue;
    }
    let separator = "[";
    for (const element of member) {
      piece += separator + element;
      separator = ",";
      if (piece.length < PIECE) continue;
      yield piece;
      piece = "";
    }
    piece += separator === "[" ? "[]" : "]";
  }
  yield `${piece}}`;
}
