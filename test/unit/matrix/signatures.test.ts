import { describe, expect, it } from "vitest";
import type { Pdu } from "../../../src/matrix/event.ts";
import { eventIdOf } from "../../../src/matrix/hashes.ts";
import { redact } from "../../../src/matrix/redaction.ts";
import type { RoomVersionRules } from "../../../src/matrix/room-versions.ts";
import {
  hashAndSignEvent,
  requiredSigners,
  signEvent,
  signingKeyFromSeed,
  signJson,
  verifyEventSignatures,
  verifyJsonSignature,
} from "../../../src/matrix/signatures.ts";
import type { KeyLookup } from "../../../src/matrix/signatures.ts";
import { ALL_RULES, aPdu, aSignedPdu, rulesFor, TEST_KEY, TEST_KEYS } from "../../support/a-pdu.ts";

const OTHER_KEY = signingKeyFromSeed("ed25519:other", Buffer.alloc(32, 9));
const BOTH_KEYS: KeyLookup = (server, keyId) =>
  server === "other.org" ? { publicKey: OTHER_KEY.publicKey, validUntilTs: 2e15 } : TEST_KEYS(server, keyId);

function verdictOf(pdu: Pdu, rules: RoomVersionRules, keys: KeyLookup = TEST_KEYS) {
  return verifyEventSignatures(pdu, rules, eventIdOf(pdu, rules), keys);
}

describe("signJson", () => {
  it("keeps other signatures and signs neither them nor unsigned", () => {
    const signed = signJson(
      { a: 1, signatures: { "other.org": { "ed25519:x": "s" } }, unsigned: { b: 2 } },
      "me",
      TEST_KEY,
    );
    expect(signed["signatures"]).toMatchObject({ "other.org": { "ed25519:x": "s" } });
    expect(verifyJsonSignature({ ...signed, unsigned: {} }, "me", TEST_KEY.keyId, TEST_KEY.publicKey)).toBe(true);
  });
});

describe("verifyJsonSignature", () => {
  const signed = signJson({ a: 1 }, "me", TEST_KEY);
  const check = (object: object) => verifyJsonSignature(object as never, "me", TEST_KEY.keyId, TEST_KEY.publicKey);

  it("is false for a changed object, another key, another server", () => {
    expect(check(signed)).toBe(true);
    expect(check({ ...signed, a: 2 })).toBe(false);
    expect(verifyJsonSignature(signed, "me", TEST_KEY.keyId, OTHER_KEY.publicKey)).toBe(false);
    expect(verifyJsonSignature(signed, "me", OTHER_KEY.keyId, TEST_KEY.publicKey)).toBe(false);
    expect(verifyJsonSignature(signed, "you", TEST_KEY.keyId, TEST_KEY.publicKey)).toBe(false);
  });

  it.each([
    undefined,
    null,
    1,
    [],
    {},
    { me: 1 },
    { me: [] },
    { me: { "ed25519:test": 1 } },
    { me: { "ed25519:test": "" } },
  ])("is false where signatures is %j", (signatures) => {
    expect(check({ a: 1, signatures })).toBe(false);
  });

  it("is false, not an error, for keys of the wrong length and objects that have no canonical form", () => {
    expect(verifyJsonSignature(signed, "me", TEST_KEY.keyId, new Uint8Array(3))).toBe(false);
    expect(check({ ...signed, a: 1.5 })).toBe(false);
  });

  it("looks at own keys only", () => {
    expect(verifyJsonSignature({ signatures: {} }, "constructor", "ed25519:name", TEST_KEY.publicKey)).toBe(false);
    expect(verifyJsonSignature({ signatures: {} }, "__proto__", "ed25519:name", TEST_KEY.publicKey)).toBe(false);
  });
});

describe("requiredSigners", () => {
  it("are the sender's server and, where it chose the event id, the server of that", () => {
    for (const rules of ALL_RULES) {
      const pdu = aPdu(rules);
      expect(requiredSigners(pdu, rules, "$x:other.org")).toEqual(
        rules.edgesCarryHashes ? ["example.org", "other.org"] : ["example.org"],
      );
    }
  });

  it("leave the sender's server out for an invite that came out of a third-party invite", () => {
    const content = { membership: "invite", third_party_invite: { signed: {} } };
    const invite = (rules: RoomVersionRules) =>
      aPdu(rules, { type: "m.room.member", state_key: "@b:other.org", content });
    expect(requiredSigners(invite(rulesFor("11")), rulesFor("11"), "$x")).toEqual([]);
    expect(requiredSigners(invite(rulesFor("2")), rulesFor("2"), "$x:other.org")).toEqual(["other.org"]);
  });

  it("hold the authorising user's server from room version 8 on, for joins", () => {
    const join = { membership: "join", join_authorised_via_users_server: "@boss:other.org" };
    const member = (rules: RoomVersionRules, content: object) => aPdu(rules, { type: "m.room.member", content });
    for (const rules of ALL_RULES.filter(({ edgesCarryHashes }) => !edgesCarryHashes)) {
      expect(requiredSigners(member(rules, join), rules, "$x")).toEqual(
        Number(rules.version) >= 8 ? ["example.org", "other.org"] : ["example.org"],
      );
      expect(requiredSigners(member(rules, { ...join, membership: "leave" }), rules, "$x")).toEqual(["example.org"]);
    }
  });
});

describe("verifyEventSignatures", () => {
  it.each(ALL_RULES)("accepts the event and its redacted copy in room version $version", (rules) => {
    const pdu = aSignedPdu(rules);
    expect(verdictOf(pdu, rules)).toEqual({ valid: true });
    expect(verdictOf(redact(pdu, rules), rules)).toEqual({ valid: true });
    expect(verdictOf({ ...pdu, unsigned: { age: 3 } }, rules)).toEqual({ valid: true });
    expect(verdictOf({ ...pdu, origin_server_ts: 1 }, rules)).toMatchObject({ valid: false, server: "example.org" });
  });

  it("asks for every server that must have signed", () => {
    const rules = rulesFor("8");
    const content = { membership: "join", join_authorised_via_users_server: "@boss:other.org" };
    const once = aSignedPdu(rules, { type: "m.room.member", state_key: "@alice:example.org", content });
    expect(verdictOf(once, rules, BOTH_KEYS)).toEqual({
      valid: false,
      server: "other.org",
      reason: "no signature of other.org",
    });
    expect(verdictOf(signEvent(once, "other.org", OTHER_KEY, rules), rules, BOTH_KEYS)).toEqual({ valid: true });
  });

  it("refuses a restricted join that names nobody who could have signed", () => {
    const rules = rulesFor("8");
    for (const authorisedBy of ["boss", null, 1, {}]) {
      const content = { membership: "join", join_authorised_via_users_server: authorisedBy };
      expect(verdictOf(aSignedPdu(rules, { type: "m.room.member", content }), rules)).toMatchObject({ valid: false });
    }
  });

  it("names the keys that it would have needed", () => {
    const rules = rulesFor("11");
    expect(verdictOf(aSignedPdu(rules), rules, () => undefined)).toEqual({
      valid: false,
      server: "example.org",
      reason: "no key of example.org is known",
      missingKeys: ["ed25519:test"],
    });
  });

  it("is content with one signature that holds", () => {
    const rules = rulesFor("11");
    const signed = signEvent(aSignedPdu(rules), "example.org", OTHER_KEY, rules);
    expect(Object.keys(signed.signatures?.["example.org"] ?? {})).toEqual(["ed25519:test", "ed25519:other"]);
    expect(verdictOf(signed, rules)).toEqual({ valid: true });
  });

  it("passes over other algorithms", () => {
    const rules = rulesFor("11");
    const pdu = aPdu(rules, { signatures: { "example.org": { "rsa:1": "c2ln" } } });
    expect(verdictOf(pdu, rules)).toMatchObject({ valid: false, reason: "no signature of example.org" });
  });

  it("heeds the validity of keys from room version 5 on", () => {
    for (const rules of ALL_RULES) {
      const pdu = aSignedPdu(rules, { origin_server_ts: 1000 });
      const verdict = (validUntilTs: number, expiredTs?: number) =>
        verdictOf(pdu, rules, () => ({
          publicKey: TEST_KEY.publicKey,
          validUntilTs,
          ...(expiredTs === undefined ? {} : { expiredTs }),
        }));
      const enforced = Number(rules.version) >= 5;
      expect(verdict(1000).valid).toBe(true);
      expect(verdict(999).valid).toBe(!enforced);
      expect(verdict(0, 1000).valid).toBe(true);
      expect(verdict(2000, 999).valid).toBe(!enforced);
      if (enforced) expect(verdict(999)).toMatchObject({ missingKeys: ["ed25519:test"] });
      if (enforced) expect(verdict(2000, 999)).not.toHaveProperty("missingKeys");
    }
  });

  it("is a verdict for a signature in the name of Object's own properties", () => {
    const rules = rulesFor("11");
    const pdu = aPdu(rules, { sender: "@a:constructor", signatures: {} });
    expect(verdictOf(pdu, rules)).toMatchObject({ valid: false, reason: "no signature of constructor" });
  });
});

describe("hashAndSignEvent", () => {
  it("leaves the event that it was given alone", () => {
    const rules = rulesFor("11");
    const pdu = Object.freeze(aPdu(rules));
    expect(hashAndSignEvent(pdu, "example.org", TEST_KEY, rules)).not.toBe(pdu);
    expect(pdu).not.toHaveProperty("hashes");
  });
});
