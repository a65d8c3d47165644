import { createByteCollector } from "../federation-api/byte-collector.ts";
import type { ByteCollector } from "../federation-api/byte-collector.ts";
import { parseJson } from "../matrix/json.ts";
import type { JsonValue } from "../matrix/json.ts";

/** The text is no JSON object of the expected shape, or exceeds a limit. */
export class LargeJsonError extends Error {
  override readonly name = "LargeJsonError";
}

interface SplitLimits {
  /** The top-level lists whose elements come out one by one. */
  readonly lists: ReadonlySet<string>;
  readonly maxElementBytes: number;
  readonly maxMemberBytes: number;
}

/** A piece of a large object: an element of one of its lists, or any other member as a whole. */
export interface JsonPiece {
  readonly kind: "element" | "member";
  readonly key: string;
  readonly value: JsonValue;
}

interface JsonSplitter {
  /** @returns the pieces that the chunk completes */
  write(chunk: Uint8Array): readonly JsonPiece[];
  /** To be called at the end of the text: it must be whole, with all of the lists. */
  end(): void;
}

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const QUOTE = 0x22;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_LIST = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_LIST = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;

/** No event of the size limit holds as many, one of nothing but empty lists included: a room may have such a one. */
const MAX_ELEMENT_VALUES = 65_536;
const MAX_MEMBER_VALUES = 250_000;

/** Where in the outermost object, or in one of the lists, the next byte stands. */
type Place =
  | "start"
  | "first-key"
  | "key"
  | "colon"
  | "value"
  | "after-member"
  | "first-element"
  | "element"
  | "after-element"
  | "end";

interface Scan {
  place: Place;
  key: string;
  /** Inside a key, an element or a member. */
  capturing: boolean;
  depth: number;
  inString: boolean;
  escaped: boolean;
  /** What earlier chunks held of the piece under way. */
  readonly begun: ByteCollector;
  readonly listsSeen: Set<string>;
}

function isWhitespace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** @returns whether the byte closes the string */
function scanStringByte(scan: Scan, byte: number): boolean {
  if (scan.escaped) scan.escaped = false;
  else if (byte === BACKSLASH) scan.escaped = true;
  else if (byte === QUOTE) scan.inString = false;
  return !scan.inString;
}

/** @returns how many bytes more, this one included, belong to the value (0: it ended before); -1 if it goes on */
function scanByte(scan: Scan, byte: number): number {
  // "[" and "{" differ in one bit, as do "]" and "}"; which of them matches is for parseJson to see.
  const bracket = byte | 0x20;
  if (byte === QUOTE) scan.inString = true;
  else if (bracket === OPEN_OBJECT) scan.depth++;
  else if (bracket === CLOSE_OBJECT) {
    if (scan.depth <= 1) return scan.depth;
    scan.depth--;
  } else if (scan.depth === 0 && (byte === COMMA || byte === COLON || isWhitespace(byte))) return 0;
  return -1;
}

/** The end (exclusive) of the value that is being captured, or -1 if it goes on behind the chunk. */
function scanValue(scan: Scan, chunk: Uint8Array, from: number): number {
  for (let at = from; at < chunk.length; at++) {
    const byte = chunk[at] ?? 0;
    if (scan.inString) {
      if (scanStringByte(scan, byte) && scan.depth === 0) return at + 1;
    } else {
      const left = scanByte(scan, byte);
      if (left >= 0) return at + left;
    }
  }
  return -1;
}

function textOf(scan: Scan, last: Uint8Array): string {
  if (scan.begun.length > 0) scan.begun.add(last);
  try {
    return UTF8.decode(scan.begun.length > 0 ? scan.begun.bytes() : last);
  } catch {
    throw new LargeJsonError("the text is not UTF-8");
  }
}

function stopCapturing(scan: Scan): void {
  scan.capturing = false;
  scan.depth = 0;
  scan.begun.clear();
}

function unexpected(byte: number, place: Place): LargeJsonError {
  return new LargeJsonError(`unexpected byte 0x${byte.toString(16)} at "${place}"`);
}

/** What the bytes between keys and values lead to. */
const NEXT_PLACE: Readonly<Partial<Record<Place, Readonly<Record<number, Place>>>>> = {
  start: { [OPEN_OBJECT]: "first-key" },
  "first-key": { [CLOSE_OBJECT]: "end" },
  colon: { [COLON]: "value" },
  "first-element": { [CLOSE_LIST]: "after-member" },
  "after-element": { [COMMA]: "element", [CLOSE_LIST]: "after-member" },
  "after-member": { [COMMA]: "key", [CLOSE_OBJECT]: "end" },
};

/** Takes a byte outside of keys and values; true if a key or a value begins with it. */
function step(scan: Scan, byte: number, lists: ReadonlySet<string>): boolean {
  const next = NEXT_PLACE[scan.place]?.[byte];
  if (next !== undefined) {
    scan.place = next;
    return false;
  }
  switch (scan.place) {
    case "first-key":
    case "key":
      return startKey(scan, byte);
    case "value":
      return lists.has(scan.key) ? startList(scan, byte) : true;
    case "first-element":
    case "element":
      scan.place = "element";
      return true;
    default:
      throw unexpected(byte, scan.place);
  }
}

function startKey(scan: Scan, byte: number): true {
  if (byte !== QUOTE) throw unexpected(byte, scan.place);
  scan.place = "key";
  return true;
}

function startList(scan: Scan, byte: number): false {
  if (byte !== OPEN_LIST) throw new LargeJsonError(`"${scan.key}" is not a list`);
  if (scan.listsSeen.has(scan.key)) throw new LargeJsonError(`"${scan.key}" is there twice`);
  scan.listsSeen.add(scan.key);
  scan.place = "first-element";
  return false;
}

function finishValue(scan: Scan, last: Uint8Array): JsonPiece | undefined {
  const value = parseJson(textOf(scan, last), scan.place === "element" ? MAX_ELEMENT_VALUES : MAX_MEMBER_VALUES);
  stopCapturing(scan);
  switch (scan.place) {
    case "key":
      if (typeof value !== "string") throw new LargeJsonError("a key is not a string");
      scan.key = value;
      scan.place = "colon";
      return undefined;
    case "element":
      scan.place = "after-element";
      return { kind: "element", key: scan.key, value };
    default:
      scan.place = "after-member";
      return { kind: "member", key: scan.key, value };
  }
}

/**
 * Cuts a large JSON object into pieces while its bytes arrive, holding no more than the piece under way. Only the
 * outer grammar is read here; each piece goes through `parseJson`, so that numbers, nesting and syntax are judged by
 * the same rules as in a small answer.
 *
 * `write` and `end` throw LargeJsonError or JsonSyntaxError; the splitter is of no use afterwards.
 */
export function createJsonSplitter(limits: SplitLimits): JsonSplitter {
  const scan: Scan = {
    place: "start",
    key: "",
    capturing: false,
    depth: 0,
    inString: false,
    escaped: false,
    begun: createByteCollector(),
    listsSeen: new Set(),
  };

  function checkSize(bytes: number): void {
    const max = scan.place === "element" ? limits.maxElementBytes : limits.maxMemberBytes;
    if (bytes > max) throw new LargeJsonError(`a value under "${scan.key}" is larger than ${max} bytes`);
  }

  /** @returns where to go on in the chunk, and the piece that ended there */
  function capture(chunk: Uint8Array, from: number): { next: number; piece: JsonPiece | undefined } {
    const end = scanValue(scan, chunk, from);
    const part = chunk.subarray(from, end < 0 ? chunk.length : end);
    checkSize(scan.begun.length + part.length);
    if (end >= 0) return { next: end, piece: finishValue(scan, part) };
    // Copied, since the rest of the chunk need not be held for a value's beginning.
    scan.begun.add(part);
    return { next: chunk.length, piece: undefined };
  }

  return {
    write(chunk) {
      const pieces: JsonPiece[] = [];
      let at = 0;
      while (at < chunk.length) {
        if (!scan.capturing) {
          const byte = chunk[at] ?? 0;
          scan.capturing = !isWhitespace(byte) && step(scan, byte, limits.lists);
          if (!scan.capturing) at++;
        }
        if (scan.capturing) {
          const { next, piece } = capture(chunk, at);
          at = next;
          if (piece !== undefined) pieces.push(piece);
        }
      }
      return pieces;
    },
    end() {
      if (scan.place !== "end") throw new LargeJsonError("the text ends too early");
      const missing = [...limits.lists].find((list) => !scan.listsSeen.has(list));
      if (missing !== undefined) throw new LargeJsonError(`"${missing}" is not there`);
    },
  };
}
