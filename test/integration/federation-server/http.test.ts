import { Writable } from "node:stream";
import { gzipSync } from "node:zlib";
import pino from "pino";
import { describe, expect, it } from "vitest";
import { verifyJsonSignature } from "../../../src/matrix/signatures.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import { openTestDatabase } from "../../support/database.ts";
import { aRoomsContext, startLoopbackFederation } from "../../support/loopback-federation.ts";

const NOW = 1_700_000_000_000;
const logged: string[] = [];
const log = new Writable({
  write(chunk, _encoding, done) {
    logged.push(String(chunk));
    done();
  },
});

const ctx = aRoomsContext(await openTestDatabase(), { now: () => NOW, logger: pino(log) });
const federation = await startLoopbackFederation(ctx);
const them = await federation.remote("them.example");

describe("GET version", () => {
  it("names the implementation to anyone", async () => {
    const { status, body } = await federation.fetch("/_matrix/federation/v1/version");
    expect([status, body]).toEqual([200, { server: { name: "Fastjoin", version: expect.any(String) } }]);
  });
});

describe("GET key/v2/server", () => {
  it("publishes our key, signed by itself, for a day", async () => {
    const { status, body } = await federation.fetch("/_matrix/key/v2/server");
    expect(status).toBe(200);
    expect(body).toMatchObject({
      server_name: "us.example",
      verify_keys: { "ed25519:us": { key: expect.stringMatching(/^[A-Za-z0-9+/]{43}$/) } },
      old_verify_keys: {},
      valid_until_ts: NOW + 24 * 60 * 60 * 1000,
    });
    const { keyId, publicKey } = ctx.signingKey;
    expect(verifyJsonSignature(body as JsonObject, "us.example", keyId, publicKey)).toBe(true);
  });
});

describe("createFederationApp", () => {
  it.each([
    ["an unknown endpoint", "/_matrix/federation/v1/nothing"],
    ["another API", "/_matrix/client/versions"],
    ["a notary's query, which we don't answer", "/_matrix/key/v2/query/a.example"],
    ["a slash too many", "/_matrix/federation/v1/version/"],
    ["capital letters", "/_MATRIX/federation/v1/version"],
    ["the root", "/"],
  ])("answers 404 to %s", async (_what, path) => {
    const answer = await federation.fetch(path);
    expect(answer).toMatchObject({ status: 404, body: { errcode: "M_UNRECOGNIZED", error: expect.any(String) } });
  });

  it.each([
    ["POST", "/_matrix/federation/v1/version"],
    ["DELETE", "/_matrix/federation/v1/send/1"],
    ["GET", "/_matrix/federation/v2/send_join/!a:b/$c"],
    ["OPTIONS", "/_matrix/federation/v1/version"],
  ])("answers 405 to %s %s", async (method, path) => {
    expect(await federation.fetch(path, { method })).toMatchObject({
      status: 405,
      body: { errcode: "M_UNRECOGNIZED" },
    });
  });

  it.each(["/_matrix/federation/v1/state/%zz", "/_matrix/federation/v1/event/%E4", "/_matrix/federation/v1/version?%"])(
    "answers a JSON error to the bad percent-encoding of %s",
    async (path) => {
      expect(await federation.fetch(path)).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
    },
  );

  it("asks for a signature before anything else", async () => {
    const answer = await federation.fetch("/_matrix/federation/v1/send/1", { method: "PUT", body: "{" });
    expect(answer).toMatchObject({ status: 401, body: { errcode: "M_UNAUTHORIZED" } });
  });

  it("refuses a signature over another body", async () => {
    const path = "/_matrix/federation/v1/send/2";
    const signed = await them.ask("PUT", path, { pdus: [] });
    expect(signed).toMatchObject({ status: 200, body: { pdus: {} } });
    const other = await federation.fetch(path, {
      method: "PUT",
      body: '{"pdus":[],"edus":[]}',
      headers: { Authorization: them.header("PUT", path, { pdus: [] }) },
    });
    expect(other).toMatchObject({ status: 401, body: { errcode: "M_UNAUTHORIZED" } });
  });

  it("refuses a server whose key can't be had", async () => {
    const path = "/_matrix/federation/v1/event/$x";
    const header = them.header("GET", path).replace("them.example", "stranger.example");
    const answer = await federation.fetch(path, { headers: { Authorization: header } });
    expect(answer).toMatchObject({ status: 401, body: { errcode: "M_UNAUTHORIZED" } });
  });

  it.each([
    ["cut off", '{"pdus":['],
    ["no JSON", "pdus"],
    ["not UTF-8", Buffer.from([0x22, 0xff, 0x22])],
    ["nested without end", "[".repeat(100_000)],
  ])("answers M_NOT_JSON to a body that is %s", async (_what, body) => {
    const path = "/_matrix/federation/v1/send/3";
    const headers = { Authorization: them.header("PUT", path, {}) };
    const answer = await federation.fetch(path, { method: "PUT", body, headers });
    expect(answer).toMatchObject({ status: 400, body: { errcode: "M_NOT_JSON" } });
  });

  it("answers M_NOT_JSON to no body, and M_BAD_JSON to one that is no object", async () => {
    const path = "/_matrix/federation/v1/send/4";
    expect(await them.ask("PUT", path)).toMatchObject({ status: 400, body: { errcode: "M_NOT_JSON" } });
    expect(await them.ask("PUT", path, [])).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
  });

  it("reads compressed bodies, and limits what they unfold to", async () => {
    const path = "/_matrix/federation/v1/get_missing_events/!none:us.example";
    const headers = (body: JsonObject) => ({
      Authorization: them.header("POST", path, body),
      "Content-Encoding": "gzip",
    });
    const small = { earliest_events: [], latest_events: [] };
    const read = await federation.fetch(path, {
      method: "POST",
      body: gzipSync(JSON.stringify(small)),
      headers: headers(small),
    });
    expect(read).toMatchObject({ status: 404, body: { errcode: "M_NOT_FOUND" } });
    const bomb = { latest_events: ["a".repeat(2_000_000)] };
    const refused = await federation.fetch(path, {
      method: "POST",
      body: gzipSync(JSON.stringify(bomb)),
      headers: headers(bomb),
    });
    expect(refused).toMatchObject({ status: 413, body: { errcode: "M_TOO_LARGE" } });
    const garbage = await federation.fetch(path, { method: "POST", body: "{}", headers: headers({}) });
    expect(garbage).toMatchObject({ status: 400, body: { errcode: "M_NOT_JSON" } });
  });

  it.each([
    "/_matrix/federation/v1/state/!a:b?event_id=x",
    "/_matrix/federation/v1/state/!a:b?event_id=$a%00b",
    "/_matrix/federation/v1/state/a?event_id=$b",
    "/_matrix/federation/v1/backfill/!a:b?v=$c&limit=many",
    "/_matrix/federation/v1/query/profile?user_id=alice",
  ])("answers M_INVALID_PARAM to %s", async (path) => {
    expect(await them.ask("GET", path)).toMatchObject({ status: 400, body: { errcode: "M_INVALID_PARAM" } });
  });

  it.each(["/_matrix/federation/v1/state/!a:b", "/_matrix/federation/v1/backfill/!a:b?limit=3"])(
    "answers M_MISSING_PARAM to %s",
    async (path) => {
      expect(await them.ask("GET", path)).toMatchObject({ status: 400, body: { errcode: "M_MISSING_PARAM" } });
    },
  );

  it("logs a failure of its own and tells nobody what it was", async () => {
    logged.length = 0;
    const listener = await startLoopbackFederation({
      ...ctx,
      database: { ...ctx.database, pool: undefined as never },
    });
    const path = "/_matrix/federation/v1/event/$x";
    const headers = { Authorization: them.header("GET", path) };
    const answer = await listener.fetch(path, { headers });
    expect(answer.status).toBe(500);
    expect(answer.body).toEqual({ errcode: "M_UNKNOWN", error: "Internal server error" });
    expect(logged.join("")).toContain("TypeError");
    expect(logged.join("")).toContain("serve-events");
  });
});

describe("PUT send", () => {
  const pdus = (count: number) => Array.from({ length: count }, () => ({ room_id: "!none:us.example" }));

  it("takes 50 PDUs and 100 EDUs, and not one more", async () => {
    const edus = (count: number) => Array.from({ length: count }, () => ({ edu_type: "m.typing", content: {} }));
    const send = async (name: string, body: JsonObject) =>
      (await them.ask("PUT", `/_matrix/federation/v1/send/${name}`, body)).status;
    expect(await send("full", { pdus: pdus(50), edus: edus(100) })).toBe(200);
    expect(await send("pdus", { pdus: pdus(51) })).toBe(400);
    expect(await send("edus", { pdus: [], edus: edus(101) })).toBe(400);
  });

  it("takes a transaction of many megabytes", async () => {
    const body = { pdus: pdus(50).map((pdu) => ({ ...pdu, content: { body: "x".repeat(60_000) } })) };
    expect((await them.ask("PUT", "/_matrix/federation/v1/send/large", body)).status).toBe(200);
  });

  it("refuses lists that are no lists", async () => {
    const path = "/_matrix/federation/v1/send/odd";
    expect(await them.ask("PUT", path, { pdus: {} })).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
    expect(await them.ask("PUT", path, {})).toMatchObject({ status: 400, body: { errcode: "M_BAD_JSON" } });
  });
});
