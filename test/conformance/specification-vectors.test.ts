import { describe, expect, it } from "vitest";
import { canonicalJson } from "../../src/matrix/canonical-json.ts";
import type { Pdu } from "../../src/matrix/event.ts";
import { contentHash, contentHashMatches, eventIdOf } from "../../src/matrix/hashes.ts";
import { parseJson } from "../../src/matrix/json.ts";
import type { JsonObject } from "../../src/matrix/json.ts";
import {
  hashAndSignEvent,
  signingKeyFromSeed,
  signJson,
  verifyEventSignatures,
  verifyJsonSignature,
} from "../../src/matrix/signatures.ts";
import { rulesFor } from "../support/a-pdu.ts";

/** https://spec.matrix.org/v1.19/appendices/#cryptographic-test-vectors */
const SEED = Buffer.from("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", "base64");
const KEY = signingKeyFromSeed("ed25519:1", SEED);

/** https://spec.matrix.org/v1.19/appendices/#examples */
const CANONICAL_JSON: readonly (readonly [input: string, canonical: string])[] = [
  ["{}", "{}"],
  ['{ "one": 1, "two": "Two" }', '{"one":1,"two":"Two"}'],
  ['{ "b": "2", "a": "1" }', '{"a":"1","b":"2"}'],
  ['{"b":"2","a":"1"}', '{"a":"1","b":"2"}'],
  [
    `{ "auth": { "success": true, "mxid": "@john.doe:example.com", "profile": { "display_name": "John Doe",
       "three_pids": [ { "medium": "email", "address": "john.doe@example.org" },
                       { "medium": "msisdn", "address": "123456789" } ] } } }`,
    '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}',
  ],
  ['{ "a": "日本語" }', '{"a":"日本語"}'],
  ['{ "本": 2, "日": 1 }', '{"日":1,"本":2}'],
  ['{ "a": "\\u65E5" }', '{"a":"日"}'],
  ['{ "a": null }', '{"a":null}'],
  ['{ "a": -0, "b": 1e10 }', '{"a":0,"b":10000000000}'],
];

describe("canonicalJson", () => {
  it.each(CANONICAL_JSON)("writes the specification's %s as %s", (input, canonical) => {
    expect(canonicalJson(parseJson(input), "strict")).toBe(canonical);
  });
});

const SIGNED_JSON: readonly (readonly [object: JsonObject, signature: string])[] = [
  [{}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"],
  [{ one: 1, two: "Two" }, "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"],
];

describe("signJson", () => {
  it.each(SIGNED_JSON)("signs the specification's %j", (object, signature) => {
    const signed = signJson(object, "domain", KEY);
    expect(signed).toEqual({ ...object, signatures: { domain: { "ed25519:1": signature } } });
    expect(verifyJsonSignature(signed, "domain", "ed25519:1", KEY.publicKey)).toBe(true);
  });
});

const MINIMAL_EVENT = {
  room_id: "!x:domain",
  sender: "@a:domain",
  origin: "domain",
  origin_server_ts: 1000000,
  signatures: {},
  hashes: {},
  type: "X",
  content: {},
  prev_events: [],
  auth_events: [],
  depth: 3,
  unsigned: { age_ts: 1000000 },
};

const REDACTABLE_EVENT = {
  content: { body: "Here is the message content" },
  event_id: "$0:domain",
  origin: "domain",
  origin_server_ts: 1000000,
  type: "m.room.message",
  room_id: "!r:domain",
  sender: "@u:domain",
  signatures: {},
  unsigned: { age_ts: 1000000 },
};

const SIGNED_EVENTS = [
  {
    name: "minimal event",
    event: MINIMAL_EVENT,
    hash: "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
    signature: "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
  },
  {
    name: "event with redactable content",
    event: REDACTABLE_EVENT,
    hash: "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
    signature: "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
  },
];

describe("hashAndSignEvent", () => {
  it.each(SIGNED_EVENTS)("signs the specification's $name", ({ event, hash, signature }) => {
    const pdu = event as unknown as Pdu;
    const rules = rulesFor("1");
    const signed = hashAndSignEvent(pdu, "domain", KEY, rules);
    expect(contentHash(pdu, rules)).toBe(hash);
    expect(signed).toEqual({ ...event, hashes: { sha256: hash }, signatures: { domain: { "ed25519:1": signature } } });
    expect(contentHashMatches(signed, rules)).toBe(true);
    const keys = () => ({ publicKey: KEY.publicKey, validUntilTs: 0 });
    expect(verifyEventSignatures(signed, rules, "$0:domain", keys)).toEqual({ valid: true });
  });
});

describe("eventIdOf", () => {
  it("is the reference hash of the specification's minimal event in the form of the version", () => {
    const signed = hashAndSignEvent(MINIMAL_EVENT as unknown as Pdu, "domain", KEY, rulesFor("3"));
    const standard = eventIdOf(signed, rulesFor("3"));
    expect(standard).toMatch(/^\$[A-Za-z0-9+/]{43}$/);
    expect(eventIdOf(signed, rulesFor("4"))).toBe(standard.replaceAll("+", "-").replaceAll("/", "_"));
    // Room version 11 lets `origin` go, and so has another id for the same event.
    expect(eventIdOf(signed, rulesFor("11"))).not.toBe(eventIdOf(signed, rulesFor("10")));
  });
});
