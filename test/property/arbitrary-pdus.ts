import fc from "fast-check";
import { expect } from "vitest";
import { authEventIds, depthOf, originServerTsOf, prevEventIds } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import { contentHashMatches, eventIdOf } from "../../src/matrix/hashes.ts";
import { isJsonArray, isJsonObject, parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import type { RoomVersionRules } from "../../src/matrix/room-versions.ts";
import { requiredSigners, verifyEventSignatures } from "../../src/matrix/signatures.ts";
import { ALL_RULES, aSignedPdu, TEST_KEYS } from "../support/a-pdu.ts";
import { laxJson } from "./arbitrary-json.ts";

export const anyRules = fc.constantFrom(...ALL_RULES);

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
export const goodPdu = fc
  .tuple(anyRules, fc.constantFrom<JsonObject>({}, memberChanges, powerChanges, createChanges))
  .map(([rules, changes]) => {
    const noRoomId = rules.roomIdIsCreateEventHash && changes === createChanges ? { room_id: undefined } : {};
    return { rules, pdu: aSignedPdu(rules, { ...changes, ...noRoomId }) };
  });

/** Puts something else, or nothing, at some place inside a value. */
export function mutate(
  value: JsonValue,
  place: readonly number[],
  replacement: JsonValue | undefined,
): JsonValue | undefined {
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

export const place = fc.array(fc.nat(30), { minLength: 1, maxLength: 4 });
/** Events with up to three things wrong, at any depth. */
export const mutant = fc
  .tuple(goodPdu, fc.array(fc.tuple(place, fc.option(laxJson, { nil: undefined })), { minLength: 1, maxLength: 3 }))
  .map(([{ rules, pdu }, mutations]) => {
    const mutated = mutations.reduce<JsonValue>((value, [at, other]) => mutate(value, at, other) ?? null, pdu);
    return { rules, value: mutated };
  });

/** An event whose text had one byte changed, or undefined where that left no JSON. */
export const changedByte = fc.tuple(goodPdu, fc.nat(), fc.nat(255)).map(([{ rules, pdu }, at, byte]) => {
  const bytes = Buffer.from(stringifyJson(pdu));
  bytes[at % bytes.length] = byte;
  try {
    return { rules, value: parseJson(bytes.toString("utf8")) };
  } catch {
    return undefined;
  }
});

/** Parses a value; an accepted event must stand all that is done to events without an error. */
export function useUp(value: JsonValue, rules: RoomVersionRules): void {
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
