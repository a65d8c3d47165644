import { describe, expect, it } from "vitest";
import { JsonSyntaxError, LosslessNumber, MAX_JSON_DEPTH, parseJson, stringifyJson } from "../../../src/matrix/json.ts";

describe("parseJson", () => {
  it.each([
    "9007199254740993",
    "-9007199254740993",
    "1.0",
    "1e3",
    "1E+3",
    "-0",
    "0.5",
    "123456789012345678901234567890",
  ])("keeps the number %s as it was written", (text) => {
    expect(parseJson(text)).toEqual(new LosslessNumber(text));
    expect(parseJson(`{"a":[${text}]}`)).toEqual({ a: [new LosslessNumber(text)] });
    expect(parseJson(` [ ${text} ] `)).toEqual([new LosslessNumber(text)]);
  });

  it("gives plain numbers for integers within ±(2^53 − 1)", () => {
    expect(parseJson("[0,-1,9007199254740991,-9007199254740991]")).toEqual([
      0, -1, 9007199254740991, -9007199254740991,
    ]);
  });

  it("reads both ways alike what has no lossy number", () => {
    const text =
      '{"s":"q\\"\\\\ \\u00e9\\ud83d\\ude00\\n","e":{},"l":[],"n":null,"t":true,"f":false,"__proto__":{"x":1},"":2}';
    const lossless = parseJson(`[${text},1.5]`) as readonly unknown[];
    expect(lossless[0]).toEqual(parseJson(text));
    expect(stringifyJson(lossless[0] as never)).toBe(JSON.stringify(JSON.parse(text)));
  });

  it("makes __proto__ a key like any other", () => {
    for (const text of ['{"__proto__":{"polluted":1}}', '{"__proto__":{"polluted":1.5}}']) {
      const value = parseJson(text) as Record<string, unknown>;
      expect(Object.keys(value)).toEqual(["__proto__"]);
      expect(value["polluted"]).toBeUndefined();
    }
  });

  it("takes the last of duplicate keys", () => {
    expect(parseJson('{"a":1,"a":2}')).toEqual({ a: 2 });
    expect(parseJson('{"a":1.5,"a":2}')).toEqual({ a: 2 });
  });

  it.each([
    "",
    "{",
    "[1,]",
    "[1.5,]",
    '{"a":1.5,}',
    '{"a" 1.5}',
    "{a:1.5}",
    "01.5",
    "1.",
    "-",
    "[1.5",
    '[1.5,"x]',
    '[1.5,"\\x"]',
    '[1.5,"\n"]',
    "[1.5] x",
    "[1.5,tru]",
    "[1.5,NaN]",
    "undefined",
  ])("refuses %j", (text) => {
    expect(() => parseJson(text)).toThrow(JsonSyntaxError);
  });

  it("refuses what is nested too deeply, and counts no brackets in strings", () => {
    const nested = (levels: number, core = "") => "[".repeat(levels) + core + "]".repeat(levels);
    expect(() => parseJson(nested(MAX_JSON_DEPTH + 1))).toThrow(JsonSyntaxError);
    expect(() => parseJson(nested(1_000_000, "1.5"))).toThrow(JsonSyntaxError);
    expect(() => parseJson('{"a":'.repeat(50_000))).toThrow(JsonSyntaxError);
    expect(stringifyJson(parseJson(nested(MAX_JSON_DEPTH, "1.5")))).toBe(nested(MAX_JSON_DEPTH, "1.5"));
    const brackets = JSON.stringify(`\\"${"[".repeat(2000)}`);
    expect(parseJson(brackets)).toBe(JSON.parse(brackets));
  });
});

describe("stringifyJson", () => {
  it("writes lossless numbers as they were read", () => {
    const text = '{"b":[1.0,9007199254740993,{"c":1e3}],"a":-0}';
    expect(stringifyJson(parseJson(text))).toBe(text);
  });

  it("leaves absent members out", () => {
    expect(stringifyJson({ a: undefined, b: 1 })).toBe('{"b":1}');
  });
});
