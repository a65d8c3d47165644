import { describe, expect, it } from "vitest";
import { behindStatus, isLongJson, longObject } from "../../../src/federation-server/long-json.ts";
import type { LongJson } from "../../../src/federation-server/long-json.ts";

async function* batches(...lists: readonly (readonly string[])[]): AsyncGenerator<readonly string[]> {
  yield* lists;
}

async function textOf(json: LongJson): Promise<string> {
  let text = "";
  for await (const chunk of json) text += chunk;
  return text;
}

describe("longObject", () => {
  it("writes lists as they come, between plain members", async () => {
    const json = longObject({
      origin: "us.example",
      state: batches([], ['{"a":1}', '{"b":2}'], [], ['{"c":1.50}']),
      auth_chain: batches(),
      omitted: false,
    });
    expect(isLongJson(json)).toBe(true);
    expect(await textOf(json)).toBe(
      '{"origin":"us.example","state":[{"a":1},{"b":2},{"c":1.50}],"auth_chain":[],"omitted":false}',
    );
  });

  it("takes a member's name for what it is", async () => {
    expect(JSON.parse(await textOf(longObject({ 'a"b': 1 })))).toEqual({ 'a"b': 1 });
  });
});

describe("behindStatus", () => {
  it("wraps an object as version 1 of some endpoints does", async () => {
    expect(JSON.parse(await textOf(behindStatus(longObject({ state: batches(["{}"]) }))))).toEqual([
      200,
      { state: [{}] },
    ]);
  });
});

describe("isLongJson", () => {
  it("knows plain values", () => {
    expect([null, 1, "text", [], {}].map(isLongJson)).toEqual([false, false, false, false, false]);
  });
});
