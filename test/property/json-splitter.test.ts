import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createJsonSplitter } from "../../src/federation-client/json-splitter.ts";
import type { JsonPiece } from "../../src/federation-client/json-splitter.ts";
import { isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonValue } from "../../src/matrix/json.ts";
import { laxJson } from "./arbitrary-json.ts";
import { runs } from "../support/fuzz.ts";

function split(bytes: Uint8Array, cuts: readonly number[]): readonly JsonPiece[] {
  const limits = { lists: new Set(["list"]), maxElementBytes: 1e6, maxMemberBytes: 1e6 };
  const splitter = createJsonSplitter(limits);
  const pieces: JsonPiece[] = [];
  let from = 0;
  for (const cut of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    pieces.push(...splitter.write(bytes.subarray(from, cut)));
    from = cut;
  }
  splitter.end();
  return pieces;
}

/** Puts the pieces together again as `parseJson` would have read the whole. */
function joined(pieces: readonly JsonPiece[]): JsonValue {
  const elements = pieces.filter(({ kind }) => kind === "element").map(({ value }) => value);
  const members = pieces.filter(({ kind }) => kind === "member").map(({ key, value }) => [key, value] as const);
  return { ...Object.fromEntries(members), list: elements };
}

const cutList = fc.array(fc.nat(), { maxLength: 6 });

describe("createJsonSplitter", () => {
  it("reads any object as parseJson does, wherever it is cut", () => {
    const members = fc.dictionary(
      fc.string().filter((key) => key !== "list" && key !== "__proto__"),
      laxJson,
      { maxKeys: 4 },
    );
    fc.assert(
      fc.property(members, fc.array(laxJson, { maxLength: 6 }), cutList, (rest, list, cuts) => {
        const text = stringifyJson({ ...rest, list });
        expect(joined(split(Buffer.from(text), cuts))).toEqual(parseJson(text));
      }),
      runs(300),
    );
  });

  it("refuses whatever parseJson refuses, and throws nothing but its own kinds of error", () => {
    const mutation = fc.record({ at: fc.nat(), byte: fc.integer({ min: 0, max: 255 }), drop: fc.nat(3) });
    fc.assert(
      fc.property(fc.array(laxJson, { maxLength: 4 }), mutation, cutList, (list, { at, byte, drop }, cuts) => {
        const bytes = Buffer.from(stringifyJson({ a: 1, list }));
        const start = at % bytes.length;
        const mutated = Buffer.concat([bytes.subarray(0, start), Buffer.from([byte]), bytes.subarray(start + drop)]);
        let whole: JsonValue | undefined;
        try {
          whole = parseJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(mutated));
        } catch {
          whole = undefined;
        }
        try {
          const pieces = split(mutated, cuts);
          expect(isJsonObject(whole)).toBe(true);
          expect(joined(pieces)).toEqual(whole);
        } catch (error) {
          expect(["LargeJsonError", "JsonSyntaxError"]).toContain((error as Error).name);
        }
      }),
      runs(1000),
    );
  });
});
