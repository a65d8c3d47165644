import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Pdu } from "../../../src/matrix/event.ts";
import { contentHash, contentHashMatches, eventIdOf, referenceHash, sha256Base64 } from "../../../src/matrix/hashes.ts";
import { parseJson, stringifyJson } from "../../../src/matrix/json.ts";
import { redact } from "../../../src/matrix/redaction.ts";
import { ALL_RULES, aPdu, aSignedPdu, rulesFor } from "../../support/a-pdu.ts";

describe("contentHash", () => {
  it.each(ALL_RULES)("covers all but unsigned, signatures and hashes in room version $version", (rules) => {
    const pdu = aSignedPdu(rules);
    expect(contentHashMatches({ ...pdu, unsigned: { age: 1 }, signatures: {} }, rules)).toBe(true);
    expect(contentHashMatches({ ...pdu, content: { ...pdu.content, body: "Hullo" } }, rules)).toBe(false);
    expect(contentHashMatches({ ...pdu, extra: 1 }, rules)).toBe(false);
    expect(contentHashMatches(redact(pdu, rules), rules)).toBe(false);
  });

  it("hashes numbers as they were written before room version 6", () => {
    const rules = rulesFor("5");
    const text = '{"content":{"big":9007199254740993,"float":1.0,"exponent":1e3},"type":"m.room.message"}';
    const expected = createHash("sha256").update(
      '{"content":{"big":9007199254740993,"exponent":1e3,"float":1.0},"type":"m.room.message"}',
    );
    expect(contentHash(parseJson(text) as unknown as Pdu, rules)).toBe(expected.digest("base64").replace("=", ""));
  });
});

describe("contentHashMatches", () => {
  const rules = rulesFor("10");

  it("compares bytes, so that padding does not matter", () => {
    const pdu = aSignedPdu(rules);
    const padded = { ...pdu, hashes: { sha256: `${pdu.hashes?.sha256}=` } };
    expect(contentHashMatches(padded, rules)).toBe(true);
  });

  it("is false for a hash that is absent or of a wrong type", () => {
    expect(contentHashMatches(aPdu(rules), rules)).toBe(false);
    expect(contentHashMatches(aPdu(rules, { hashes: { sha256: 1 } }), rules)).toBe(false);
    expect(contentHashMatches(aPdu(rules, { hashes: { sha256: "" } }), rules)).toBe(false);
  });
});

describe("eventIdOf", () => {
  it.each(ALL_RULES)("has the form of room version $version", (rules) => {
    const forms = {
      "chosen-by-sender": /^\$message:example\.org$/,
      base64: /^\$[A-Za-z0-9+/]{43}$/,
      "url-safe-base64": /^\$[A-Za-z0-9_-]{43}$/,
    };
    expect(eventIdOf(aSignedPdu(rules), rules)).toMatch(forms[rules.eventIdFormat]);
  });

  it.each(ALL_RULES)("outlives redaction, signatures and unsigned data in room version $version", (rules) => {
    const pdu = aSignedPdu(rules);
    const id = eventIdOf(pdu, rules);
    expect(eventIdOf(redact(pdu, rules), rules)).toBe(id);
    expect(eventIdOf({ ...pdu, signatures: {}, unsigned: { age: 1 }, age_ts: 1 }, rules)).toBe(id);
    expect(referenceHash({ ...pdu, depth: 13 }, rules)).not.toEqual(referenceHash(pdu, rules));
  });
});

describe("sha256Base64", () => {
  it("hashes the UTF-8 bytes and leaves the padding out", () => {
    expect(sha256Base64("")).toBe("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
    expect(sha256Base64("é")).toBe(createHash("sha256").update("é", "utf8").digest("base64").replace("=", ""));
  });
});

describe("stored text", () => {
  it("has the hash of the event that was received", () => {
    const rules = rulesFor("4");
    const pdu = aSignedPdu(rules, { content: parseJson('{"n":[1.0,9007199254740993]}') });
    expect(contentHashMatches(parseJson(stringifyJson(pdu)) as unknown as Pdu, rules)).toBe(true);
  });
});
