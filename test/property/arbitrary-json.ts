import fc from "fast-check";
import { LosslessNumber } from "../../src/matrix/json.ts";
import type { JsonValue } from "../../src/matrix/json.ts";

/** Texts of JSON numbers, harmless and odd ones. */
export const numberText: fc.Arbitrary<string> = fc.oneof(
  fc.maxSafeInteger().map(String),
  fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }).map(String),
  fc
    .tuple(fc.integer(), fc.option(fc.nat()), fc.option(fc.tuple(fc.constantFrom("e", "E", "e+", "e-"), fc.nat(400))))
    .map(
      ([whole, fraction, exponent]) => `${whole}${fraction === null ? "" : `.${fraction}`}${exponent?.join("") ?? ""}`,
    ),
  fc.constantFrom("-0", "0", "1.0", "1e3", "9007199254740993", "0.0", "-0.0", "1e400"),
);

/** A number as {@link parseJson} gives it. */
export function numberOf(text: string): number | LosslessNumber {
  const value = Number(text);
  return Number.isSafeInteger(value) && String(value) === text ? value : new LosslessNumber(text);
}

const key = fc.oneof(
  { weight: 4, arbitrary: fc.string({ unit: "grapheme-composite", maxLength: 8 }) },
  fc.constantFrom("__proto__", "constructor", "toString", "", "\u{1F600}", "\uFB01", "10", "9", "a\u0000"),
);

function jsonOf(number: fc.Arbitrary<JsonValue>): fc.Arbitrary<JsonValue> {
  const { json } = fc.letrec<{ json: JsonValue }>((tie) => ({
    json: fc.oneof(
      { maxDepth: 5, withCrossShrink: true },
      fc.constantFrom(null, true, false),
      number,
      fc.string({ unit: "binary", maxLength: 12 }),
      fc.array(tie("json"), { maxLength: 5 }),
      fc.dictionary(key, tie("json"), { maxKeys: 6, noNullPrototype: true }),
    ),
  }));
  return json;
}

/** JSON as room versions 1 to 5 allow it. */
export const laxJson: fc.Arbitrary<JsonValue> = jsonOf(numberText.map(numberOf));

/** JSON with nothing but integers within ±(2^53 − 1). */
export const strictJson: fc.Arbitrary<JsonValue> = jsonOf(fc.maxSafeInteger());
