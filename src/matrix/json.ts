import { LosslessNumber } from "lossless-json";

export type JsonValue = null | boolean | number | string | LosslessNumber | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [key: string]: JsonValue | undefined;
}

/** A number whose text `JSON.parse` would lose: beyond 2^53, with a fraction or with an exponent. */
export { LosslessNumber };

/** Why a text is not JSON that we take. */
export class JsonSyntaxError extends Error {
  readonly code = "JSON_SYNTAX";
  override readonly name = "JsonSyntaxError";
}

/**
 * How many arrays and objects may stand inside each other: far more than an event may have, far less than a stack holds.
 * Recursion over a value that {@link parseJson} returned needs no guard of its own.
 */
export const MAX_JSON_DEPTH = 1000;

/**
 * How many values a text of a stranger may hold: each takes up to a hundred bytes of memory, however few its text has.
 * Fifty events of nothing but empty lists hold less.
 */
export const MAX_FOREIGN_VALUES = 1_200_000;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof LosslessNumber);
}

export function isJsonArray(value: unknown): value is readonly JsonValue[] {
  return Array.isArray(value);
}

/**
 * Reads JSON without losing a number: plain numbers of the result are safe integers, all others are
 * {@link LosslessNumber}. Of a duplicate key the last value counts, as with `JSON.parse`.
 *
 * @param maxValues how many values it may hold, those inside of others counted: any number if it is left out
 * @throws {JsonSyntaxError} for anything that is not JSON, holds too many values, or is nested deeper than
 *   {@link MAX_JSON_DEPTH}.
 */
export function parseJson(text: string, maxValues = Number.POSITIVE_INFINITY): JsonValue {
  if (scanExtent(text, maxValues).mayLoseNumbers) return parseLossless(text);
  try {
    return JSON.parse(text) as JsonValue;
  } catch (error) {
    throw new JsonSyntaxError(error instanceof Error ? error.message : String(error));
  }
}

/** How `JSON.stringify` writes a {@link LosslessNumber}, among other things. */
const MAYBE_LOSSLESS = '"isLosslessNumber"';

/** Writes JSON, each {@link LosslessNumber} as it was read; keys in the order of the object. */
export function stringifyJson(value: JsonValue): string {
  // Far faster than what follows, and nearly always right.
  const text = JSON.stringify(value);
  return text.includes(MAYBE_LOSSLESS) ? stringifyLossless(value) : text;
}

function stringifyLossless(value: JsonValue): string {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (value instanceof LosslessNumber) return value.value;
  if (isJsonArray(value)) return `[${value.map(stringifyLossless).join(",")}]`;
  const members: string[] = [];
  for (const key of Object.keys(value)) {
    const member = value[key];
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${stringifyLossless(member)}`);
  }
  return `{${members.join(",")}}`;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const MINUS = 0x2d;

/** The longest number that `JSON.parse` surely keeps: -0 apart, integers of fifteen digits are exact. */
const MAX_EXACT_DIGITS = 15;

/** Looks at the text alone, before anything recursive sees it. Mistakes of syntax are left to the parser. */
function scanExtent(text: string, maxValues: number): { readonly mayLoseNumbers: boolean } {
  let depth = 0;
  // A value stands behind each of them, but for an empty list's or object's bracket.
  let commasAndBrackets = 0;
  let mayLoseNumbers = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) at = endOfString(text, at);
    else if (code === COMMA) commasAndBrackets++;
    else if (code === MINUS || isDigit(code)) {
      const end = endOfNumber(text, at + 1);
      mayLoseNumbers ||= !isExact(text, at, end);
      at = end - 1;
    }
    // "[" and "{" differ in one bit, as do "]" and "}".
    else if ((code | 0x20) === 0x7b) {
      commasAndBrackets++;
      if (++depth > MAX_JSON_DEPTH) throw new JsonSyntaxError(`nested deeper than ${MAX_JSON_DEPTH} levels`);
    } else if ((code | 0x20) === 0x7d) depth--;
  }
  if (commasAndBrackets > maxValues) throw new JsonSyntaxError(`more than ${maxValues} values`);
  return { mayLoseNumbers };
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39;
}

/** Behind the digits; a fraction or an exponent begins there. */
function endOfNumber(text: string, from: number): number {
  let at = from;
  while (isDigit(text.charCodeAt(at))) at++;
  return at;
}

/** Whether `JSON.parse` keeps the number that has these digits, all of it. */
function isExact(text: string, start: number, end: number): boolean {
  const next = text.charCodeAt(end);
  // ".", "e" and "E"
  if (next === 0x2e || (next | 0x20) === 0x65) return false;
  const isNegative = text.charCodeAt(start) === MINUS;
  if (isNegative && text.charCodeAt(start + 1) === 0x30) return false;
  return end - start - (isNegative ? 1 : 0) <= MAX_EXACT_DIGITS;
}

/** The position of the closing quote, or the end of the text. */
function endOfString(text: string, start: number): number {
  let at = text.indexOf('"', start + 1);
  while (at > 0 && isEscaped(text, at)) at = text.indexOf('"', at + 1);
  return at < 0 ? text.length : at;
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(at - 1 - backslashes) === BACKSLASH) backslashes++;
  return backslashes % 2 === 1;
}

interface Cursor {
  readonly text: string;
  at: number;
}

function parseLossless(text: string): JsonValue {
  const cursor: Cursor = { text, at: 0 };
  const value = readValue(cursor);
  skipWhitespace(cursor);
  if (cursor.at < text.length) throw unexpected(cursor);
  return value;
}

function unexpected(cursor: Cursor): JsonSyntaxError {
  const found = cursor.at < cursor.text.length ? JSON.stringify(cursor.text.charAt(cursor.at)) : "end of text";
  return new JsonSyntaxError(`unexpected ${found} at position ${cursor.at}`);
}

function skipWhitespace(cursor: Cursor): void {
  for (;;) {
    const code = cursor.text.charCodeAt(cursor.at);
    if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
    cursor.at++;
  }
}

function readValue(cursor: Cursor): JsonValue {
  skipWhitespace(cursor);
  switch (cursor.text.charAt(cursor.at)) {
    case "{":
      return readObject(cursor);
    case "[":
      return readArray(cursor);
    case '"':
      return readString(cursor);
    case "t":
      return readWord(cursor, "true", true);
    case "f":
      return readWord(cursor, "false", false);
    case "n":
      return readWord(cursor, "null", null);
    default:
      return readNumber(cursor);
  }
}

function readWord<T>(cursor: Cursor, word: string, value: T): T {
  if (!cursor.text.startsWith(word, cursor.at)) throw unexpected(cursor);
  cursor.at += word.length;
  return value;
}

function readString(cursor: Cursor): string {
  const end = endOfString(cursor.text, cursor.at);
  const literal = cursor.text.slice(cursor.at, end + 1);
  try {
    const value = JSON.parse(literal) as string;
    cursor.at = end + 1;
    return value;
  } catch {
    throw new JsonSyntaxError(`malformed string at position ${cursor.at}`);
  }
}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/y;

function readNumber(cursor: Cursor): number | LosslessNumber {
  NUMBER.lastIndex = cursor.at;
  const literal = NUMBER.exec(cursor.text)?.[0];
  if (literal === undefined) throw unexpected(cursor);
  cursor.at += literal.length;
  const value = Number(literal);
  return Number.isSafeInteger(value) && String(value) === literal ? value : new LosslessNumber(literal);
}

function readArray(cursor: Cursor): JsonValue[] {
  const items: JsonValue[] = [];
  cursor.at++;
  skipWhitespace(cursor);
  if (cursor.text.charAt(cursor.at) === "]") {
    cursor.at++;
    return items;
  }
  do items.push(readValue(cursor));
  while (nextMember(cursor, "]"));
  return items;
}

function readObject(cursor: Cursor): JsonObject {
  const members: { [key: string]: JsonValue } = {};
  cursor.at++;
  skipWhitespace(cursor);
  if (cursor.text.charAt(cursor.at) === "}") {
    cursor.at++;
    return members;
  }
  do {
    skipWhitespace(cursor);
    if (cursor.text.charAt(cursor.at) !== '"') throw unexpected(cursor);
    const key = readString(cursor);
    skipWhitespace(cursor);
    if (cursor.text.charAt(cursor.at) !== ":") throw unexpected(cursor);
    cursor.at++;
    const value = readValue(cursor);
    // Assigned, `__proto__` would set the prototype; `JSON.parse` makes it a key like any other.
    if (key === "__proto__") Object.defineProperty(members, key, { value, ...DATA_PROPERTY });
    else members[key] = value;
  } while (nextMember(cursor, "}"));
  return members;
}

const DATA_PROPERTY = { writable: true, enumerable: true, configurable: true };

/** Behind a member: true for a comma, false for the closing bracket. */
function nextMember(cursor: Cursor, closing: string): boolean {
  skipWhitespace(cursor);
  const found = cursor.text.charAt(cursor.at);
  if (found !== "," && found !== closing) throw unexpected(cursor);
  cursor.at++;
  return found === ",";
}
