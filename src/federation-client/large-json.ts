import { createByteCollector } from "../federation-api/byte-collector.ts";
import { JsonSyntaxError, MAX_FOREIGN_VALUES, parseJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";
import { createJsonSplitter, LargeJsonError } from "./json-splitter.ts";
import type { JsonPiece } from "./json-splitter.ts";

interface LargeJsonShape {
  /** The lists whose elements are handed on one by one. */
  readonly lists: readonly string[];
  /** The other members that are wanted; the rest is checked for syntax and dropped. */
  readonly members: readonly string[];
  readonly onElement: (list: string, element: JsonValue) => void | Promise<void>;
}

// A PDU holds 65,536 bytes of canonical JSON; written with escapes, six times as much.
const MAX_ELEMENT_BYTES = 512 * 1024;
/** Fifty thousand names of servers take a third of it. */
const MAX_MEMBER_BYTES = 4 * 1024 * 1024;

/** Whether an error says that the text is at fault, and not the code that took it. */
export function isJsonFault(error: unknown): error is Error {
  return error instanceof JsonSyntaxError || error instanceof LargeJsonError;
}

/**
 * Reads a JSON object that is too large to be held. The next chunk is asked for only when `onElement` has settled for
 * all elements of the last.
 *
 * @returns the wanted members that were there
 * @throws JsonSyntaxError or LargeJsonError for the text's faults; what `bytes` and `onElement` throw
 */
export async function readLargeJson(
  bytes: AsyncIterable<Uint8Array>,
  shape: LargeJsonShape,
): Promise<ReadonlyMap<string, JsonValue>> {
  const splitter = createJsonSplitter({
    lists: new Set(shape.lists),
    maxElementBytes: MAX_ELEMENT_BYTES,
    maxMemberBytes: MAX_MEMBER_BYTES,
  });
  const wanted = new Set(shape.members);
  const members = new Map<string, JsonValue>();
  const take = ({ kind, key, value }: JsonPiece): void | Promise<void> => {
    if (kind === "element") return shape.onElement(key, value);
    if (wanted.has(key)) members.set(key, value);
  };
  for await (const chunk of bytes) {
    for (const piece of splitter.write(chunk)) {
      const settled = take(piece);
      // Only what is not done yet is awaited: 100,000 empty turns of the event loop would be felt.
      if (settled !== undefined) await settled;
    }
  }
  splitter.end();
  return members;
}

/** Reads a JSON text that may be held as a whole. */
export async function readSmallJson(bytes: AsyncIterable<Uint8Array>): Promise<JsonValue> {
  const collector = createByteCollector();
  for await (const chunk of bytes) collector.add(chunk);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(collector.bytes());
  } catch {
    throw new LargeJsonError("the text is not UTF-8");
  }
  return parseJson(text, MAX_FOREIGN_VALUES);
}
