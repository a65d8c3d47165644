import { isJsonArray, LosslessNumber, MAX_JSON_DEPTH } from "./json.ts";
import type { JsonObject, JsonValue } from "./json.ts";

/** Why a value has no canonical form. */
export class CanonicalJsonError extends Error {
  readonly code = "CANONICAL_JSON";
  override readonly name = "CanonicalJsonError";
}

/**
 * `strict`: numbers are integers within ±(2^53 − 1), as room version 6 on and all signed JSON that is not an event
 * require. `lax`: numbers are written as they were read, as room versions 1 to 5 need.
 */
export type CanonicalJsonMode = "strict" | "lax";

/**
 * The shortest JSON with sorted keys: what is hashed and signed.
 *
 * @throws {CanonicalJsonError} for a number the mode refuses, a lone surrogate, or nesting beyond `MAX_JSON_DEPTH`.
 * @see https://spec.matrix.org/v1.19/appendices/#canonical-json
 */
export function canonicalJson(value: JsonValue, mode: CanonicalJsonMode): string {
  return encodeValue(value, mode, 0);
}

/** {@link canonicalJson} of an object without some of its own keys, which saves a copy per event. */
export function canonicalJsonWithout(
  object: JsonObject,
  omitted: ReadonlySet<string>,
  mode: CanonicalJsonMode,
): string {
  return encodeObject(object, mode, 0, omitted);
}

/**
 * {@link canonicalJsonWithout} member by member, for texts that share most of them.
 *
 * @param take told of each member in the order of their keys; `text` is its canonical `"key":value`
 */
export function forEachCanonicalMember(
  object: JsonObject,
  omitted: ReadonlySet<string>,
  mode: CanonicalJsonMode,
  take: (key: string, text: string) => void,
): void {
  for (const key of sortedKeys(object)) {
    const member = object[key];
    if (member !== undefined && !omitted.has(key)) take(key, canonicalMember(key, member, mode));
  }
}

/** `"key":value` as it stands in an object that is no part of another. */
export function canonicalMember(key: string, value: JsonValue, mode: CanonicalJsonMode): string {
  return encodeString(key) + ":" + encodeValue(value, mode, 1);
}

function encodeValue(value: JsonValue, mode: CanonicalJsonMode, depth: number): string {
  switch (typeof value) {
    case "string":
      return encodeString(value);
    case "number":
      return encodeNumber(value, mode);
    case "boolean":
      return value ? "true" : "false";
    case "object":
      if (value === null) return "null";
      if (depth >= MAX_JSON_DEPTH) throw new CanonicalJsonError(`nested deeper than ${MAX_JSON_DEPTH} levels`);
      if (isJsonArray(value)) return encodeArray(value, mode, depth);
      if (value instanceof LosslessNumber) return encodeLosslessNumber(value.value, mode);
      return encodeObject(value, mode, depth, undefined);
    default:
      throw new CanonicalJsonError(`a value of type ${typeof value} is not JSON`);
  }
}

function encodeArray(items: readonly JsonValue[], mode: CanonicalJsonMode, depth: number): string {
  let text = "[";
  for (let index = 0; index < items.length; index++) {
    if (index > 0) text += ",";
    text += encodeValue(items[index] as JsonValue, mode, depth + 1);
  }
  return text + "]";
}

function encodeObject(
  object: JsonObject,
  mode: CanonicalJsonMode,
  depth: number,
  omitted: ReadonlySet<string> | undefined,
): string {
  let text = "";
  for (const key of sortedKeys(object)) {
    const member = object[key];
    if (member === undefined || omitted?.has(key)) continue;
    text += (text === "" ? "{" : ",") + encodeString(key) + ":" + encodeValue(member, mode, depth + 1);
  }
  return text === "" ? "{}" : text + "}";
}

const ANY_SURROGATE = /[\ud800-\udfff]/;

/** JavaScript sorts by UTF-16 unit, the specification by code point: they differ where surrogates meet U+E000 on. */
function sortedKeys(object: JsonObject): string[] {
  const keys = Object.keys(object);
  if (keys.length < 2) return keys;
  let sorted = true;
  for (let at = 0; at < keys.length; at++) {
    const key = keys[at] as string;
    if (ANY_SURROGATE.test(key)) return keys.sort(compareCodePoints);
    sorted &&= at === 0 || (keys[at - 1] as string) < key;
  }
  return sorted ? keys : keys.sort();
}

/** Orders strings by Unicode code point. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) {
    const left = a.charCodeAt(at);
    const right = b.charCodeAt(at);
    if (left !== right) return codePointRank(left) - codePointRank(right);
  }
  return a.length - b.length;
}

/** Code points above U+FFFF start with a surrogate, so surrogates rank above all other units. */
function codePointRank(unit: number): number {
  return unit >= 0xd800 && unit <= 0xdfff ? unit + 0x10000 : unit;
}

const NEEDS_NO_ESCAPE = /^[ !#-[\]-\ud7ff\ue000-\uffff]*$/;
const LONE_SURROGATE = /\p{Surrogate}/u;

function encodeString(value: string): string {
  if (NEEDS_NO_ESCAPE.test(value)) return '"' + value + '"';
  // A lone surrogate has no UTF-8 form, so there is nothing that two servers could agree to hash.
  if (LONE_SURROGATE.test(value)) throw new CanonicalJsonError("a string holds a lone surrogate");
  return JSON.stringify(value);
}

function encodeNumber(value: number, mode: CanonicalJsonMode): string {
  if (Number.isSafeInteger(value)) return String(value);
  if (mode === "strict") throw new CanonicalJsonError(`${value} is not an integer within ±(2^53 − 1)`);
  if (!Number.isFinite(value)) throw new CanonicalJsonError(`${value} is not JSON`);
  return String(value);
}

const INTEGER_WITH_EXPONENT = /^(-?\d+)(?:[eE]\+?(\d+))?$/;

/**
 * Strict: the specification's example turns `-0` into `0` and `1e10` into `10000000000`, so what is an integer but for
 * its spelling is spelled anew. A fraction, even `1.0`, is refused as other servers refuse it.
 */
function encodeLosslessNumber(text: string, mode: CanonicalJsonMode): string {
  if (mode === "lax") return text;
  const value = Number(text);
  if (!INTEGER_WITH_EXPONENT.test(text) || !Number.isSafeInteger(value)) {
    throw new CanonicalJsonError(`${text} is not an integer within ±(2^53 − 1)`);
  }
  return String(value);
}
