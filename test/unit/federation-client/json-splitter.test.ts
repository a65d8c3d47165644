import { describe, expect, it } from "vitest";
import { createJsonSplitter } from "../../../src/federation-client/json-splitter.ts";
import type { JsonPiece } from "../../../src/federation-client/json-splitter.ts";
import { LosslessNumber } from "../../../src/matrix/json.ts";

const limits = { lists: new Set(["state"]), maxElementBytes: 100, maxMemberBytes: 200 };

/** Splits a text that comes in chunks of `size` bytes. */
function split(
  text: string | Uint8Array,
  size = 1_000_000,
  lists: readonly string[] = ["state"],
): readonly JsonPiece[] {
  const splitter = createJsonSplitter({ ...limits, lists: new Set(lists) });
  const bytes = typeof text === "string" ? Buffer.from(text) : text;
  const pieces: JsonPiece[] = [];
  for (let at = 0; at < bytes.length; at += size) pieces.push(...splitter.write(bytes.subarray(at, at + size)));
  splitter.end();
  return pieces;
}

const element = (value: JsonPiece["value"]): JsonPiece => ({ kind: "element", key: "state", value });
const member = (key: string, value: JsonPiece["value"]): JsonPiece => ({ kind: "member", key, value });

describe("createJsonSplitter", () => {
  const text =
    ' { "origin" : "ö\\"]}\\\\" ,\n"state":[ {"a":[1,{"b":"]"}]} ,"x\\u00e9", 12 ,true, [ ] ],"n":-1.50,"o":{} } \n';
  const pieces = [
    member("origin", 'ö"]}\\'),
    element({ a: [1, { b: "]" }] }),
    element("xé"),
    element(12),
    element(true),
    element([]),
    member("n", new LosslessNumber("-1.50")),
    member("o", {}),
  ];

  it("gives the elements of a list one by one, and the other members whole", () => {
    expect(split(text)).toEqual(pieces);
  });

  it("gives the same wherever the chunks are cut", () => {
    for (let size = 1; size < Buffer.byteLength(text); size++) expect(split(text, size)).toEqual(pieces);
  });

  it("takes an empty list, an empty object, and lists of other names as members", () => {
    expect(split('{"state":[]}')).toEqual([]);
    expect(split("{}", 1, [])).toEqual([]);
    expect(split('{"other":[1,2],"state":[3]}')).toEqual([member("other", [1, 2]), element(3)]);
  });

  it("makes a key of __proto__ like any other", () => {
    const [piece] = split('{"state":[{"__proto__":{"polluted":true}}]}');
    expect(Object.keys(piece?.value as object)).toEqual(["__proto__"]);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  it.each([
    ["nothing", ""],
    ["a list", '["state"]'],
    ["an open object", '{"state":[1]'],
    ["an open list", '{"state":[1'],
    ["an open string", '{"state":["a'],
    ["two objects", '{"state":[]}{"state":[]}'],
    ["something behind the object", '{"state":[]} x'],
    ["a comma too many in the list", '{"state":[1,]}'],
    ["a comma too many in the object", '{"state":[],}'],
    ["a leading comma", '{"state":[,1]}'],
    ["no comma", '{"state":[1 2]}'],
    ["no colon", '{"state"[1]}'],
    ["two colons", '{"state"::[1]}'],
    ["a key that is no string", '{state:[1],"state":[]}'],
    ["no value", '{"a":,"state":[]}'],
    ["a bad literal", '{"state":[tru]}'],
    ["a bad number", '{"state":[01]}'],
    ["a bracket of the wrong kind inside", '{"state":[{"a":1]]}'],
    ["a bracket of the wrong kind at the end", '{"state":[1}}'],
    ["a string stuck to a number", '{"state":[1"a"]}'],
    ["a control character in a string", '{"state":["\n"]}'],
    ["a list that is none", '{"state":{"a":1}}'],
    ["a list that is there twice", '{"state":[1],"state":[2]}'],
    ["a list that is missing", '{"auth_chain":[1]}'],
    ["a byte order mark", '\uFEFF{"state":[]}'],
  ])("refuses %s, however it is cut", (_what, bad) => {
    for (const size of [1, 2, 7, 1000]) expect(() => split(bad, size), `in chunks of ${size}`).toThrow();
  });

  it("refuses what is not UTF-8", () => {
    const bytes = Buffer.from('{"state":["ab"]}');
    bytes[11] = 0xff;
    expect(() => split(bytes)).toThrow("the text is not UTF-8");
    const surrogate = Buffer.concat([Buffer.from('{"state":["'), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from('"]}')]);
    expect(() => split(surrogate, 3)).toThrow("the text is not UTF-8");
  });

  it("refuses an element, a member or a key beyond its limit before it has all of it", () => {
    const splitter = createJsonSplitter(limits);
    splitter.write(Buffer.from('{"state":["'));
    splitter.write(Buffer.alloc(90, "x"));
    expect(() => splitter.write(Buffer.alloc(90, "x"))).toThrow('a value under "state" is larger than 100 bytes');
    expect(() => split(`{"a":"${"x".repeat(200)}","state":[]}`)).toThrow("larger than 200 bytes");
    expect(() => split(`{"${"x".repeat(200)}":1,"state":[]}`)).toThrow("larger than 200 bytes");
  });

  it("refuses nesting that would break a recursive reader", () => {
    const deep = "[".repeat(50_000) + "]".repeat(50_000);
    const roomy = createJsonSplitter({ ...limits, maxElementBytes: 1e6 });
    expect(() => roomy.write(Buffer.from(`{"state":[${deep}]}`))).toThrow("nested deeper");
  });
});
