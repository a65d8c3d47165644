import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CanonicalJsonError, canonicalJson, compareCodePoints } from "../../src/matrix/canonical-json.ts";
import { isJsonArray, isJsonObject, JsonSyntaxError, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { laxJson, numberOf, numberText, strictJson } from "./arbitrary-json.ts";
import { runs } from "../support/fuzz.ts";

/** The same value with the keys of every object the other way round. */
function reordered(value: JsonValue): JsonValue {
  if (isJsonArray(value)) return value.map(reordered);
  if (!isJsonObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toReversed()
      .map(([key, member]) => [key, member === undefined ? undefined : reordered(member)]),
  );
}

function keysInOrder(text: string): string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)":/g)].map(([, key]) => JSON.parse(`"${key}"`) as string);
}

describe("canonicalJson", () => {
  it("is read back as the value that was written", () => {
    fc.assert(
      fc.property(laxJson, (value) => {
        expect(parseJson(canonicalJson(value, "lax"))).toEqual(value);
      }),
      runs(100),
    );
  });

  it("does not depend on the order of keys, and is its own canonical form", () => {
    fc.assert(
      fc.property(laxJson, (value) => {
        const text = canonicalJson(value, "lax");
        expect(canonicalJson(reordered(value), "lax")).toBe(text);
        expect(canonicalJson(parseJson(text), "lax")).toBe(text);
      }),
      runs(100),
    );
  });

  it("is the same in both modes where there are only integers", () => {
    fc.assert(
      fc.property(strictJson, (value) => {
        expect(canonicalJson(value, "strict")).toBe(canonicalJson(value, "lax"));
      }),
      runs(100),
    );
  });

  it("writes the keys in the order of their code points", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ unit: "binary", maxLength: 4 })), (keys) => {
        const text = canonicalJson(Object.fromEntries(keys.map((key) => [key, 0])), "strict");
        const byBytes = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        expect(keysInOrder(text)).toEqual(byBytes);
        expect(keys.toSorted(compareCodePoints)).toEqual(byBytes);
      }),
      runs(100),
    );
  });

  it("writes in strict mode an integer that means the same number, or refuses it", () => {
    fc.assert(
      fc.property(numberText, (number) => {
        try {
          const text = canonicalJson(numberOf(number), "strict");
          expect(text).toMatch(/^(0|-?[1-9]\d{0,15})$/);
          // `+ 0` since -0 and 0 are one number.
          expect(Number(text)).toBe(Number(number) + 0);
        } catch (error) {
          expect(error).toBeInstanceOf(CanonicalJsonError);
        }
      }),
      runs(100),
    );
  });
});

describe("parseJson", () => {
  it("reads any text as JSON.parse does, or refuses it where that does", () => {
    const mutated = fc
      .tuple(laxJson.map(stringifyJson), fc.nat(), fc.string({ maxLength: 2 }))
      .map(([text, at, insert]) => {
        const position = at % (text.length + 1);
        return text.slice(0, position) + insert + text.slice(position + 1);
      });
    fc.assert(
      fc.property(fc.oneof(mutated, fc.json(), fc.string()), fc.constantFrom("", "[1.5,"), (text, prefix) => {
        // The prefix leads into the lossless parser.
        const whole = prefix + text + (prefix === "" ? "" : "]");
        const expected = attempt(() => JSON.parse(whole) as unknown);
        const actual = attempt(() => parseJson(whole));
        if (expected.error !== undefined) {
          expect(actual.error).toBeInstanceOf(JsonSyntaxError);
          return;
        }
        expect(actual.error).toBeUndefined();
        expect(JSON.parse(stringifyJson(actual.value as JsonValue))).toEqual(expected.value);
      }),
      runs(1000),
    );
  });
});

function attempt(read: () => unknown): { readonly value?: unknown; readonly error?: unknown } {
  try {
    return { value: read() };
  } catch (error) {
    return { error };
  }
}
