import { describe, expect, it } from "vitest";
import {
  authorizationHeader,
  formatXMatrix,
  parseXMatrix,
  signedRequestObject,
} from "../../../src/federation-api/x-matrix.ts";
import { parseJson } from "../../../src/matrix/json.ts";
import { signingKeyFromSeed, verifyJsonSignature } from "../../../src/matrix/signatures.ts";

const key = signingKeyFromSeed("ed25519:a_1", Buffer.alloc(32, 7));
const request = {
  method: "PUT",
  uri: "/_matrix/federation/v1/send/1?a=%20b",
  origin: "us.example",
  destination: "them.example:8448",
} as const;

describe("authorizationHeader", () => {
  it("gives credentials whose signature verifies over the request as received", () => {
    const content = { pdus: [{ depth: 3 }] };
    const credentials = parseXMatrix(authorizationHeader({ ...request, content }, key));
    expect(credentials).toMatchObject({
      origin: "us.example",
      destination: "them.example:8448",
      keyId: "ed25519:a_1",
    });
    if (credentials === undefined) throw new Error("not parsed");
    const signed = signedRequestObject({ ...request, content }, credentials);
    expect(verifyJsonSignature(signed, "us.example", "ed25519:a_1", key.publicKey)).toBe(true);
    const altered = signedRequestObject({ ...request, content: { pdus: [{ depth: 4 }] } }, credentials);
    expect(verifyJsonSignature(altered, "us.example", "ed25519:a_1", key.publicKey)).toBe(false);
    const elsewhere = signedRequestObject({ ...request, content, uri: `${request.uri}&c` }, credentials);
    expect(verifyJsonSignature(elsewhere, "us.example", "ed25519:a_1", key.publicKey)).toBe(false);
  });

  it("signs events of old room versions, whose numbers JSON.parse would lose", () => {
    const content = parseJson('{"pdus":[{"depth":9007199254740993,"content":{"x":1.0}}]}');
    const credentials = parseXMatrix(authorizationHeader({ ...request, content }, key));
    if (credentials === undefined) throw new Error("not parsed");
    const signed = signedRequestObject({ ...request, content }, credentials);
    expect(verifyJsonSignature(signed, "us.example", "ed25519:a_1", key.publicKey)).toBe(true);
  });
});

describe("parseXMatrix", () => {
  const credentials = {
    origin: "a.example",
    destination: "b.example",
    keyId: "ed25519:k",
    signature: "c2ln/+",
  } as const;

  it("reads what formatXMatrix writes", () => {
    expect(parseXMatrix(formatXMatrix(credentials))).toEqual(credentials);
  });

  it("accepts a header without a destination", () => {
    const header = 'X-Matrix origin="a.example",key="ed25519:k",sig="c2ln"';
    expect(parseXMatrix(header)).toEqual({ origin: "a.example", keyId: "ed25519:k", signature: "c2ln" });
  });

  it("accepts unquoted values, any case of names, white space, unknown parameters, escapes", () => {
    const header = 'x-matrix Origin=a.example:80 , KEY = ed25519:k,more="x,y", sig="c\\2ln/+",destination="[::1]:8448"';
    expect(parseXMatrix(header)).toEqual({
      origin: "a.example:80",
      destination: "[::1]:8448",
      keyId: "ed25519:k",
      signature: "c2ln/+",
    });
  });

  it.each([
    ["another scheme", 'Bearer origin="a.example",key="ed25519:k",sig="c2ln"'],
    ["no origin", 'X-Matrix key="ed25519:k",sig="c2ln"'],
    ["no signature", 'X-Matrix origin="a.example",key="ed25519:k"'],
    ["an empty signature", 'X-Matrix origin="a.example",key="ed25519:k",sig=""'],
    ["an origin that is no server name", 'X-Matrix origin="a/b",key="ed25519:k",sig="c2ln"'],
    ["a destination that is no server name", 'X-Matrix origin="a",destination="b b",key="ed25519:k",sig="c2ln"'],
    ["a key that is no key id", 'X-Matrix origin="a.example",key="k",sig="c2ln"'],
    ["an open quote", 'X-Matrix origin="a.example",key="ed25519:k",sig="c2ln'],
    ["garbage between parameters", 'X-Matrix origin="a.example" key="ed25519:k",sig="c2ln"'],
    ["no end", `X-Matrix origin="a.example",key="ed25519:k",sig="${"x".repeat(5000)}"`],
  ])("refuses a header with %s", (_what, header) => {
    expect(parseXMatrix(header)).toBeUndefined();
  });
});
