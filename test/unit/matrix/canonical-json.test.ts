import { describe, expect, it } from "vitest";
import { CanonicalJsonError, canonicalJson, canonicalJsonWithout } from "../../../src/matrix/canonical-json.ts";
import { LosslessNumber, parseJson } from "../../../src/matrix/json.ts";
import type { JsonValue } from "../../../src/matrix/json.ts";

describe("canonicalJson", () => {
  it("orders keys by code point, not by UTF-16 unit", () => {
    const keys = ["\u{1F600}", "\uFB01", "a", "\u{10000}", "\uD7FF", "Z", "aa", ""];
    const object = Object.fromEntries(keys.map((key) => [key, 1]));
    const written = Object.keys(JSON.parse(canonicalJson(object, "strict")) as object);
    expect(written).toEqual(["", "Z", "a", "aa", "\uD7FF", "\uFB01", "\u{10000}", "\u{1F600}"]);
  });

  it("orders keys that look like array indices as text", () => {
    expect(canonicalJson({ 10: 1, 9: 2, 1: 3 }, "strict")).toBe('{"1":3,"10":1,"9":2}');
  });

  it("escapes what JSON demands and nothing else", () => {
    expect(canonicalJson('"\\/\b\f\n\r\t\u0000\u001f\u007f\u2028é日\u{1F600}', "strict")).toBe(
      '"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\u007f\u2028é日\u{1F600}"',
    );
  });

  it.each(["\ud800", "x\udfffy", "\udc00\ud800"])("refuses the lone surrogate in %j", (text) => {
    expect(() => canonicalJson(text, "lax")).toThrow(CanonicalJsonError);
    expect(() => canonicalJson({ [text]: 1 }, "strict")).toThrow(CanonicalJsonError);
  });

  it.each(["9007199254740993", "1.0", "1e3", "-0", "0.5", "1E400"])(
    "writes %s as it was written in lax mode",
    (number) => {
      expect(canonicalJson(parseJson(`{"n":${number}}`), "lax")).toBe(`{"n":${number}}`);
    },
  );

  it.each(["9007199254740992", "-9007199254740992", "1.0", "1.5", "1e400", "1e-1", "10e-1", "1e16"])(
    "refuses %s in strict mode",
    (number) => {
      expect(() => canonicalJson(parseJson(`{"n":${number}}`), "strict")).toThrow(CanonicalJsonError);
    },
  );

  it("refuses numbers of our own making that JSON or strict mode can't hold", () => {
    for (const number of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => canonicalJson(number, "lax")).toThrow(CanonicalJsonError);
    }
    for (const number of [0.5, 2 ** 53, Number.NaN]) {
      expect(() => canonicalJson(number, "strict")).toThrow(CanonicalJsonError);
    }
    expect(canonicalJson([-0, 9007199254740991], "strict")).toBe("[0,9007199254740991]");
  });

  it("refuses a value that is nested too deeply without overflowing the stack", () => {
    let value: JsonValue = new LosslessNumber("1.5");
    for (let level = 0; level < 200_000; level++) value = level % 2 === 0 ? [value] : { a: value };
    expect(() => canonicalJson(value, "lax")).toThrow(CanonicalJsonError);
  });

  it("refuses what is not JSON", () => {
    expect(() => canonicalJson([undefined] as never, "lax")).toThrow(CanonicalJsonError);
    expect(() => canonicalJson(1n as never, "lax")).toThrow(CanonicalJsonError);
  });
});

describe("canonicalJsonWithout", () => {
  it("leaves keys out at the top only", () => {
    const object = { b: { unsigned: 1 }, unsigned: 2, a: undefined };
    expect(canonicalJsonWithout(object, new Set(["unsigned"]), "strict")).toBe('{"b":{"unsigned":1}}');
  });
});
