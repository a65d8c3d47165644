import { describe, expect, it } from "vitest";
import { behindStatus, isLongJson, longJson, longMembers, memberText } from "../../../src/federation-api/long-json.ts";
import type { LongJson } from "../../../src/federation-api/long-json.ts";

async function* batches(...lists: readonly (readonly string[])[]): AsyncGenerator<readonly string[]> {
  yield* lists;
}

async function textOf(json: LongJson): Promise<string> {
  let text = "";
  for await (const chunk of json) text += chunk;
  return text;
}

describe("longJson", () => {
  it("writes lists as they come, between plain members", async () => {
    const json = longJson({
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
    expect(JSON.parse(await textOf(longJson({ 'a"b': batches() })))).toEqual({ 'a"b': [] });
  });

  it("writes a list that stands for itself", async () => {
    expect(await textOf(longJson(batches(["1"], ["2", "3"])))).toBe("[1,2,3]");
  });

  it("finds lists as deep as they stand, and leaves out what is undefined", async () => {
    const state = { events: batches(['{"a":1}']) };
    const json = longJson({ next_batch: "s1", nothing: undefined, rooms: { join: { "!a": { state }, "!b": {} } } });
    expect(await textOf(json)).toBe(
      '{"next_batch":"s1","rooms":{"join":{"!a":{"state":{"events":[{"a":1}]}},"!b":{}}}}',
    );
  });

  it("writes an object from its members", async () => {
    const joined = longMembers(batches([memberText("@a:x", { n: 1 })], [], [memberText('@"b', {})]));
    expect(JSON.parse(await textOf(longJson({ joined })))).toEqual({ joined: { "@a:x": { n: 1 }, '@"b': {} } });
    expect(await textOf(longJson(longMembers(batches())))).toBe("{}");
  });

  it("writes a value without any of them as one text", async () => {
    const texts: string[] = [];
    for await (const text of longJson({ a: [{ b: {} }], c: undefined })) texts.push(text);
    expect(texts).toEqual(['{"a":[{"b":{}}]}']);
  });
});

describe("behindStatus", () => {
  it("wraps an object as version 1 of some endpoints does", async () => {
    expect(JSON.parse(await textOf(behindStatus(longJson({ state: batches(["{}"]) }))))).toEqual([
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
