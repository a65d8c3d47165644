import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { canonicalJson, CanonicalJsonError } from "../../src/matrix/canonical-json.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import { canonicalModeOf, contentHashMatches, contentText, redactedText } from "../../src/matrix/hashes.ts";
import { isJsonObject } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { redact } from "../../src/matrix/redaction.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { verifyEventSignatures } from "../../src/matrix/signatures.ts";
import { ALL_RULES, aSignedPdu, TEST_KEYS } from "../support/a-pdu.ts";
import { laxJson } from "./arbitrary-json.ts";
import { anyRules, changedByte, goodPdu, mutant, mutate, place, useUp } from "./arbitrary-pdus.ts";
import { runs } from "../support/fuzz.ts";

describe("parsePdu", () => {
  it("gives nothing but verdicts on arbitrary JSON", () => {
    fc.assert(fc.property(laxJson, anyRules, useUp), runs(100));
  });

  it("gives nothing but verdicts on events with arbitrary members", () => {
    const keys = Object.keys(aSignedPdu(ALL_RULES[0] as never));
    const record = fc.record(Object.fromEntries(keys.map((key) => [key, laxJson])), { requiredKeys: [] });
    fc.assert(fc.property(record, anyRules, useUp), runs(100));
  });

  it("gives nothing but verdicts on mutated events, and what it accepts can be used", () => {
    fc.assert(
      fc.property(mutant, ({ rules, value }) => useUp(value, rules)),
      runs(3000),
    );
  });

  it("gives nothing but verdicts on mutated bytes", () => {
    fc.assert(
      fc.property(changedByte, (mutated) => {
        if (mutated !== undefined) useUp(mutated.value, mutated.rules);
      }),
      runs(3000),
    );
  });
});

describe("the texts of an event", () => {
  it("are those that are written one by one", () => {
    fc.assert(
      fc.property(mutant, ({ rules, value }) => {
        const verdict = parsePdu(value, rules);
        if (!verdict.ok) return;
        const { pdu } = verdict.event;
        const oneByOne = { content: contentText(pdu, rules), redacted: redactedText(pdu, rules) };
        expect(verdict.texts).toMatchObject(oneByOne);
      }),
      runs(1000),
    );
  });
});

describe("redact", () => {
  it("changes nothing the second time", () => {
    fc.assert(
      fc.property(mutant, ({ rules, value }) => {
        const verdict = parsePdu(value, rules);
        if (!verdict.ok) return;
        const once = redact(verdict.event.pdu, rules);
        expect(redact(once, rules)).toEqual(once);
        expect(parsePdu(once, rules)).toMatchObject({ ok: true, event: { eventId: verdict.event.eventId } });
      }),
      runs(1000),
    );
  });
});

/** What is hashed and signed: `-0` and `0` are the same there, from room version 6 on. */
function canonicalForm(value: JsonValue, rules: RoomVersionRules): string | undefined {
  try {
    return canonicalJson(value, canonicalModeOf(rules));
  } catch (error) {
    if (error instanceof CanonicalJsonError) return undefined;
    throw error;
  }
}

describe("a changed event", () => {
  it("fails its hash or its signature", () => {
    fc.assert(
      fc.property(goodPdu, place, laxJson, ({ rules, pdu }, at, other) => {
        const { unsigned: _, signatures, ...covered } = pdu;
        const changed = mutate(covered, at, other);
        fc.pre(isJsonObject(changed) && canonicalForm(changed, rules) !== canonicalForm(covered, rules));
        const verdict = parsePdu({ ...(changed as JsonObject), signatures } as JsonValue, rules);
        if (!verdict.ok) return;
        const { eventId, pdu: accepted } = verdict.event;
        const proved =
          contentHashMatches(accepted, rules) && verifyEventSignatures(accepted, rules, eventId, TEST_KEYS).valid;
        expect(proved).toBe(false);
      }),
      runs(2000),
    );
  });
});
