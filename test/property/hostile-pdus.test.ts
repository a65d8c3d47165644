import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { authEventIds, depthOf, originServerTsOf, prevEventIds } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import { contentHashMatches, eventIdOf } from "../../src/matrix/hashes.ts";
import { isJsonArray, isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { redact } from "../../src/matrix/redaction.ts";
import { requiredSigners, verifyEventSignatures } from "../../src/matrix/signatures.ts";
import { ALL_RULES, aSignedPdu, TEST_KEYS } from "../support/a-pdu.ts";
import { laxJson } from "./arbitrary-json.ts";

const rulesArbitrary = fc.constantFrom(...ALL_RULES);

const memberChanges = {
  type: "m.room.member",
  state_key: "@bob:example.org",
  content: {
    membership: "join",
    displayname: "Bob",
    join_authorised_via_users_server: "@alice:example.org",
    third_party_invite: { signed: { mxid: "@bob:example.org", token: "t" } },
  },
};
const powerChanges = {
  type: "m.room.power_levels",
  state_key: "",
  content: { users: { "@alice:example.org": 100 }, ban: 50, invite: 0 },
};
const createChanges = { type: "m.room.create", state_key: "", content: { creator: "@alice:example.org" } };

/** Good events of every kind whose content outlives a redaction in part. */
const goodPdu = fc
  .tuple(rulesArbitrary, fc.constantFrom<JsonObject>({}, memberChanges, powerChanges, createChanges))
  .map(([rules, changes]) => {
    const noRoomId = rules.roomIdIsCreateEventHash && changes === createChanges ? { room_id: undefined } : {};
    return { rules, pdu: aSignedPdu(rules, { ...changes, ...noRoomId }) };
  });

/** Puts something else, or nothing, at some place inside a value. */
function mutate(value: JsonValue, place: readonly number[], replacement: JsonValue | undefined): JsonValue | undefined {
  const [first, ...rest] = place;
  if (first === undefined) return replacement;
  if (isJsonArray(value)) {
    if (value.length === 0) return replacement;
    const at = first % value.length;
    return value.flatMap((item, index) => (index === at ? (mutate(item, rest, replacement) ?? []) : [item]));
  }
  if (!isJsonObject(value)) return replacement;
  const keys = Object.keys(value);
  const key = keys[first % Math.max(keys.length, 1)];
  if (key === undefined) return replacement;
  return { ...value, [key]: mutate(value[key] ?? null, rest, replacement) };
}

const place = fc.array(fc.nat(30), { minLength: 1, maxLength: 4 });
const mutant = fc
  .tuple(goodPdu, fc.array(fc.tuple(place, fc.option(laxJson, { nil: undefined })), { minLength: 1, maxLength: 3 }))
  .map(([{ rules, pdu }, mutations]) => {
    const mutated = mutations.reduce<JsonValue>((value, [at, other]) => mutate(value, at, other) ?? null, pdu);
    return { rules, value: mutated };
  });

/** What every accepted event must stand without an error. */
function useUp(value: JsonValue, rules: (typeof ALL_RULES)[number]): void {
  const verdict = parsePdu(value, rules);
  if (!verdict.ok) {
    expect(verdict.reason).not.toBe("");
    return;
  }
  const { eventId, pdu } = verdict.event;
  expect(eventId.startsWith("$")).toBe(true);
  expect(verdict.event.roomId.startsWith("!")).toBe(true);
  expect([...prevEventIds(pdu), ...authEventIds(pdu)].every((id) => id.startsWith("$"))).toBe(true);
  expect(depthOf(pdu)).toBeGreaterThanOrEqual(0n);
  expect(Number.isFinite(originServerTsOf(pdu))).toBe(true);
  expect(typeof contentHashMatches(pdu, rules)).toBe("boolean");
  expect(typeof verifyEventSignatures(pdu, rules, eventId, TEST_KEYS).valid).toBe("boolean");
  expect(requiredSigners(pdu, rules, eventId).every((server) => server !== "")).toBe(true);
  expect(eventIdOf(parseJson(stringifyJson(pdu)) as typeof pdu, rules)).toBe(eventId);
}

describe("parsePdu", () => {
  it("gives nothing but verdicts on arbitrary JSON", () => {
    fc.assert(fc.property(laxJson, rulesArbitrary, useUp));
  });

  it("gives nothing but verdicts on events with arbitrary members", () => {
    const keys = Object.keys(aSignedPdu(ALL_RULES[0] as never));
    const record = fc.record(Object.fromEntries(keys.map((key) => [key, laxJson])), { requiredKeys: [] });
    fc.assert(fc.property(record, rulesArbitrary, useUp));
  });

  it("gives nothing but verdicts on mutated events, and what it accepts can be used", () => {
    fc.assert(
      fc.property(mutant, ({ rules, value }) => useUp(value, rules)),
      { numRuns: 3000 },
    );
  });

  it("gives nothing but verdicts on mutated bytes", () => {
    fc.assert(
      fc.property(goodPdu, fc.nat(), fc.nat(255), ({ rules, pdu }, at, byte) => {
        const bytes = Buffer.from(stringifyJson(pdu));
        bytes[at % bytes.length] = byte;
        let value: JsonValue;
        try {
          value = parseJson(bytes.toString("utf8"));
        } catch {
          return;
        }
        useUp(value, rules);
      }),
      { numRuns: 3000 },
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
      { numRuns: 1000 },
    );
  });
});

describe("a changed event", () => {
  it("fails its hash or its signature", () => {
    fc.assert(
      fc.property(goodPdu, place, laxJson, ({ rules, pdu }, at, other) => {
        const { unsigned: _, signatures, ...covered } = pdu;
        const changed = mutate(covered, at, other);
        fc.pre(isJsonObject(changed) && stringifyJson(changed) !== stringifyJson(covered));
        const verdict = parsePdu({ ...(changed as JsonObject), signatures } as JsonValue, rules);
        if (!verdict.ok) return;
        const { eventId, pdu: accepted } = verdict.event;
        const proved =
          contentHashMatches(accepted, rules) && verifyEventSignatures(accepted, rules, eventId, TEST_KEYS).valid;
        expect(proved).toBe(false);
      }),
      { numRuns: 2000 },
    );
  });
});
