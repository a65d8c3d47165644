import { describe, expect, it } from "vitest";
import { MatrixError } from "../../../src/federation-api/matrix-error.ts";
import { authorizationHeader, formatXMatrix } from "../../../src/federation-api/x-matrix.ts";
import type { SignableRequest } from "../../../src/federation-api/x-matrix.ts";
import { authenticateRequest, readClaimedOrigin } from "../../../src/federation-server/authenticate-request.ts";
import type { ReceivedRequest } from "../../../src/federation-server/authenticate-request.ts";
import { parseJson } from "../../../src/matrix/json.ts";
import { signingKeyFromSeed } from "../../../src/matrix/signatures.ts";
import type { VerifyKey } from "../../../src/matrix/signatures.ts";

const US = "us.example";
const THEM = "them.example:8448";
const KEY = signingKeyFromSeed("ed25519:1", Buffer.alloc(32, 1));
const OTHER_KEY = signingKeyFromSeed("ed25519:2", Buffer.alloc(32, 2));
const NOW = 1_700_000_000_000;

const request: ReceivedRequest = {
  method: "PUT",
  uri: "/_matrix/federation/v1/send/1%2F2?x=%C3%A4",
  content: parseJson('{"pdus":[{"content":{"big":9007199254740993,"float":1.50}}]}'),
};

const received: SignableRequest & { readonly destination: string } = { ...request, origin: THEM, destination: US };

function refusal(run: () => unknown): MatrixError {
  try {
    run();
  } catch (error) {
    if (error instanceof MatrixError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("readClaimedOrigin", () => {
  const good = formatXMatrix({ origin: THEM, destination: US, keyId: "ed25519:1", signature: "c2ln" });

  it("reads who signed, with or without a destination", () => {
    expect(readClaimedOrigin(US, [good]).origin).toBe(THEM);
    expect(readClaimedOrigin(US, ['x-matrix origin=them.example,key="ed25519:1",sig="c2ln"']).origin).toBe(
      "them.example",
    );
  });

  it("takes several signatures of one origin", () => {
    const second = formatXMatrix({ origin: THEM, destination: US, keyId: "ed25519:2", signature: "c2ln" });
    expect(readClaimedOrigin(US, [good, second]).signatures.map(({ keyId }) => keyId)).toEqual([
      "ed25519:1",
      "ed25519:2",
    ]);
  });

  it.each([
    ["no header", [], "no Authorization header"],
    ["another scheme", ["Bearer abc"], "not of the X-Matrix scheme"],
    ["an empty header", [""], "not of the X-Matrix scheme"],
    ["the scheme alone", ["X-Matrix "], "needs origin, key and sig"],
    ["no signature", ['X-Matrix origin="a.example",key="ed25519:1"'], "needs origin, key and sig"],
    ["no key", ['X-Matrix origin="a.example",sig="c2ln"'], "needs origin, key and sig"],
    ["no origin", ['X-Matrix key="ed25519:1",sig="c2ln"'], "needs origin, key and sig"],
    ["an origin that is no server name", ['X-Matrix origin="a b",key="ed25519:1",sig="c2ln"'], "needs origin"],
    ["an open quotation mark", ['X-Matrix origin="a.example,key="ed25519:1",sig="c2ln"'], "needs origin"],
    ["another algorithm", ['X-Matrix origin="a.example",key="rsa:1",sig="c2ln"'], "algorithm is not supported"],
    [
      "another server's name as destination",
      ['X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="c2ln"'],
      "meant for b.example",
    ],
    ["two origins", [good, good.replace(THEM, "a.example")], "different origins"],
    ["a good header beside a bad one", [good, "Bearer abc"], "not of the X-Matrix scheme"],
    ["too many headers", Array.from({ length: 9 }, () => good), "too many"],
  ])("refuses %s", (_what, headers, message) => {
    const error = refusal(() => readClaimedOrigin(US, headers));
    expect(error).toMatchObject({ status: 401, errcode: "M_UNAUTHORIZED" });
    expect(error.message).toContain(message);
  });
});

describe("authenticateRequest", () => {
  const VALID: VerifyKey = { publicKey: KEY.publicKey, validUntilTs: NOW + 1000 };

  function authenticate(headers: readonly string[], changes: Partial<ReceivedRequest> = {}, key = VALID) {
    const keyRing = {
      keysFor: async () => (server: string, keyId: string) =>
        server === THEM && keyId === KEY.keyId ? key : undefined,
    };
    const ctx = { keyRing, now: () => NOW };
    return authenticateRequest(ctx, { ...request, ...changes }, readClaimedOrigin(US, headers));
  }

  it("accepts a request as it was signed, with numbers that JSON.parse would lose", async () => {
    await expect(authenticate([authorizationHeader(received, KEY)])).resolves.toBeUndefined();
  });

  it("accepts one whose header names no destination, and which was signed without one", async () => {
    const { destination: _none, ...without } = received;
    const signature = /sig="([^"]+)"/.exec(authorizationHeader(without as typeof received, KEY))?.[1] ?? "";
    await expect(authenticate([formatXMatrix({ origin: THEM, keyId: KEY.keyId, signature })])).resolves.toBeUndefined();
  });

  it("accepts one of several signatures", async () => {
    const headers = [authorizationHeader(received, OTHER_KEY), authorizationHeader(received, KEY)];
    await expect(authenticate(headers)).resolves.toBeUndefined();
  });

  it.each<[string, Partial<ReceivedRequest>]>([
    ["method", { method: "GET" }],
    ["path", { uri: "/_matrix/federation/v1/send/1/2?x=%C3%A4" }],
    ["query", { uri: "/_matrix/federation/v1/send/1%2F2?x=%c3%a4" }],
    ["body", { content: parseJson('{"pdus":[{"content":{"big":9007199254740992,"float":1.50}}]}') }],
    ["missing body", { content: undefined }],
  ])("refuses a request with another %s than was signed", async (_what, changes) => {
    await expect(authenticate([authorizationHeader(received, KEY)], changes)).rejects.toMatchObject({
      status: 401,
      errcode: "M_UNAUTHORIZED",
      message: expect.stringContaining("signature is wrong"),
    });
  });

  it("refuses a signature that was made for a request without destination, when the header adds one", async () => {
    const { destination: _none, ...without } = received;
    const signature = /sig="([^"]+)"/.exec(authorizationHeader(without as typeof received, KEY))?.[1] ?? "";
    const header = formatXMatrix({ origin: THEM, destination: US, keyId: KEY.keyId, signature });
    await expect(authenticate([header])).rejects.toMatchObject({ status: 401 });
  });

  it.each<[string, VerifyKey, string]>([
    ["has run out", { ...VALID, validUntilTs: NOW - 1 }, "no longer valid"],
    ["is an old one", { ...VALID, expiredTs: NOW + 1000 }, "no longer uses"],
    ["is another", { ...VALID, publicKey: OTHER_KEY.publicKey }, "signature is wrong"],
  ])("refuses a key that %s", async (_what, key, message) => {
    await expect(authenticate([authorizationHeader(received, KEY)], {}, key)).rejects.toMatchObject({
      status: 401,
      message: expect.stringContaining(message),
    });
  });

  it("refuses a key that can't be had", async () => {
    await expect(authenticate([authorizationHeader(received, OTHER_KEY)])).rejects.toMatchObject({
      status: 401,
      message: expect.stringContaining("could not be had"),
    });
  });
});
