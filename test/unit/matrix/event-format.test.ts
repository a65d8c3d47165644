import { describe, expect, it } from "vitest";
import { canonicalJson } from "../../../src/matrix/canonical-json.ts";
import { MAX_PDU_BYTES, parsePdu } from "../../../src/matrix/event-format.ts";
import { contentText, eventIdOf, redactedText } from "../../../src/matrix/hashes.ts";
import { LosslessNumber, parseJson } from "../../../src/matrix/json.ts";
import type { JsonValue } from "../../../src/matrix/json.ts";
import type { RoomVersionRules } from "../../../src/matrix/room-versions.ts";
import { ALL_RULES, aPdu, aSignedPdu, rulesFor } from "../../support/a-pdu.ts";

const NOT_STRICT = ALL_RULES.filter((rules) => !rules.strictCanonicalJson);
const STRICT = ALL_RULES.filter((rules) => rules.strictCanonicalJson);

/** A PDU that lacks nothing; its hash and signature are not looked at. */
function parseWith(rules: RoomVersionRules, changes: Record<string, unknown>) {
  return parsePdu({ ...aSignedPdu(rules), ...changes } as JsonValue, rules);
}

function reasonFor(rules: RoomVersionRules, changes: Record<string, unknown>): string | undefined {
  const verdict = parseWith(rules, changes);
  return verdict.ok ? undefined : verdict.reason;
}

describe.each(ALL_RULES)("parsePdu in room version $version", (rules) => {
  it("takes an event of the version's form and computes its id", () => {
    const pdu = aSignedPdu(rules);
    expect(parsePdu(pdu, rules)).toEqual({
      ok: true,
      event: { eventId: eventIdOf(pdu, rules), roomId: pdu.room_id, pdu, rejected: false },
      texts: expect.objectContaining({ content: contentText(pdu, rules), redacted: redactedText(pdu, rules) }),
    });
  });

  it("takes edges in the version's form only", () => {
    const pair = ["$a:example.org", { sha256: "x" }];
    expect(reasonFor(rules, { prev_events: [pair] }) === undefined).toBe(rules.edgesCarryHashes);
    expect(reasonFor(rules, { auth_events: ["$a"] }) === undefined).toBe(!rules.edgesCarryHashes);
    expect(reasonFor(rules, { prev_events: [], auth_events: [] })).toBeUndefined();
    for (const edge of [
      null,
      1,
      {},
      [],
      "a",
      "$",
      ["$a:b"],
      ["$a:b", {}, 1],
      ["$a:b", "x"],
      [1, {}],
      `$${"a".repeat(255)}`,
    ]) {
      expect(reasonFor(rules, { prev_events: [edge] })).toMatch(/^prev_events holds/);
      expect(reasonFor(rules, { auth_events: [edge] })).toMatch(/^auth_events holds/);
    }
  });

  it("takes 20 prev_events and 10 auth_events, no more", () => {
    const edges = (count: number) => Array<unknown>(count).fill(aPdu(rules).prev_events[0]);
    expect(reasonFor(rules, { prev_events: edges(20), auth_events: edges(10) })).toBeUndefined();
    expect(reasonFor(rules, { prev_events: edges(21) })).toBe("prev_events has 21 entries, more than 20");
    expect(reasonFor(rules, { auth_events: edges(11) })).toBe("auth_events has 11 entries, more than 10");
  });

  it("takes a depth up to the version's limit", () => {
    const depth = (text: string) => reasonFor(rules, { depth: parseJson(text) });
    expect(depth("0")).toBeUndefined();
    expect(depth("9007199254740991")).toBeUndefined();
    expect(depth("9007199254740992") === undefined).toBe(!rules.strictCanonicalJson);
    expect(depth("9223372036854775807") === undefined).toBe(!rules.strictCanonicalJson);
    for (const text of ["9223372036854775808", "-1", "99999999999999999999999"]) {
      expect(depth(text)).toMatch(/^depth is not/);
    }
    for (const text of ["1.0", "1e3", '"1"', "null", "[1]"]) expect(depth(text)).toBe("depth is not an integer");
  });

  it("takes 65,536 bytes of canonical JSON, unsigned data not counted", () => {
    const filledTo = (bytes: number) => {
      const empty = { ...aSignedPdu(rules), content: { body: "é" } };
      const length = Buffer.byteLength(canonicalJson(empty, "lax"));
      return { content: { body: `é${"x".repeat(bytes - length)}` } };
    };
    expect(reasonFor(rules, filledTo(MAX_PDU_BYTES))).toBeUndefined();
    expect(reasonFor(rules, filledTo(MAX_PDU_BYTES + 1))).toBe("larger than 65536 bytes");
    expect(reasonFor(rules, { ...filledTo(MAX_PDU_BYTES), unsigned: { note: "y".repeat(1000) } })).toBeUndefined();
  });

  it("takes 255 bytes of type, state_key, sender and room_id, no more", () => {
    const server = ":example.org";
    const fits = (sigil: string, length: number, tail = "") => sigil + "a".repeat(length - 1 - tail.length) + tail;
    for (const [key, value] of [
      ["type", (length: number) => fits("m", length)],
      ["state_key", (length: number) => fits("é", length - 1)],
      ["sender", (length: number) => fits("@", length, server)],
      ["room_id", (length: number) => fits("!", length, server)],
    ] as const) {
      expect(reasonFor(rules, { [key]: value(255) })).toBeUndefined();
      expect(reasonFor(rules, { [key]: value(256) })).toBe(`${key} is longer than 255 bytes`);
    }
  });

  it("refuses NUL in what is stored as text", () => {
    for (const key of ["type", "state_key", "sender", "room_id"] as const) {
      const value = `${aPdu(rules, { state_key: "x" })[key]}\u0000`;
      expect(reasonFor(rules, { [key]: value })).toBe(`${key} holds a NUL character`);
    }
    expect(reasonFor(rules, { type: "m.room.member", content: { membership: "join\u0000" } })).toBe(
      "membership holds a NUL character",
    );
    const id = "$a\u0000:example.org";
    expect(reasonFor(rules, { prev_events: [rules.edgesCarryHashes ? [id, {}] : id] })).toMatch(/NUL/);
    expect(reasonFor(rules, { content: { body: "\u0000" } })).toBeUndefined();
  });

  it("refuses lone surrogates, which have no UTF-8 form", () => {
    expect(reasonFor(rules, { content: { body: "\ud800" } })).toMatch(/surrogate/);
  });

  it.each([
    ["type", [undefined, null, 1, [], {}], "type is not a string"],
    ["sender", [undefined, null, 1, ["@a:b"]], "sender is not a string"],
    ["sender", ["", "a:b", "@a", "@a:", "@a:b c", "@a:b:port"], "sender is not a user id"],
    ["room_id", [undefined, null, 1, {}], "room_id is not a string"],
    ["room_id", ["", "!", "room:b", "#room:b"], "room_id is not a room id"],
    ["state_key", [null, 1, [], {}], "state_key is not a string"],
    ["content", [undefined, null, 1, "x", [], new LosslessNumber("1.5")], "content is not an object"],
    ["prev_events", [undefined, null, 1, "x", {}], "prev_events is not an array"],
    ["auth_events", [undefined, null, 1, "x", {}], "auth_events is not an array"],
    ["origin_server_ts", [undefined, null, "1", {}, new LosslessNumber("1.5")], "origin_server_ts is not an integer"],
    ["hashes", [undefined, null, 1, [], "x"], "hashes is not an object"],
    ["hashes", [{}, { sha256: 1 }, { sha512: "x" }], "hashes has no sha256"],
    ["signatures", [undefined, null, 1, [], "x"], "signatures is not an object"],
    ["signatures", [{ a: null }, { a: [] }, { a: "x" }], "signatures holds something else than objects"],
    ["signatures", [{ a: { k: 1 } }, { a: { k: null } }], "a signature is not a string"],
    ["unsigned", [null, 1, [], "x"], "unsigned is not an object"],
  ])("gives a reason for each wrong %s", (key, values, reason) => {
    for (const value of values) expect(reasonFor(rules, { [key]: value })).toBe(reason);
  });

  it.each([null, true, 1, "x", [[]], new LosslessNumber("1.5")])("refuses %j in place of an event", (value) => {
    expect(parsePdu(value, rules)).toEqual({ ok: false, reason: "not a JSON object" });
  });

  it("takes 127 levels of nesting, no more", () => {
    const nested = (levels: number) => parseJson(`${"[".repeat(levels)}1${"]".repeat(levels)}`);
    expect(reasonFor(rules, { content: { n: nested(125) } })).toBeUndefined();
    expect(reasonFor(rules, { content: { n: nested(126) } })).toBe("nested deeper than 127 levels");
    expect(reasonFor(rules, { extra: nested(126) })).toBeUndefined();
    expect(reasonFor(rules, { extra: nested(127) })).toBe("nested deeper than 127 levels");
    expect(reasonFor(rules, { unsigned: { n: nested(300) } })).toBeUndefined();
  });

  it("is not overflowed by deep nesting, whether parsed or made by us", () => {
    let deep: JsonValue = [];
    for (let level = 0; level < 100_000; level++) deep = [deep];
    expect(reasonFor(rules, { content: { deep } })).toMatch(/nested deeper/);
    expect(reasonFor(rules, { unsigned: { deep } })).toBeUndefined();
    expect(reasonFor(rules, { prev_events: deep })).toMatch(/^prev_events holds/);
  });
});

describe("parsePdu before room version 6", () => {
  it.each(NOT_STRICT)("keeps odd numbers in version $version", (rules) => {
    for (const number of ["9007199254740993", "1.0", "1e3", "-0"]) {
      expect(reasonFor(rules, { content: { n: parseJson(number) } })).toBeUndefined();
    }
  });
});

describe("parsePdu from room version 6 on", () => {
  it.each(STRICT)("refuses odd numbers in version $version, wherever they count", (rules) => {
    for (const number of ["9007199254740993", "1.0", "1e3", "1e10", "0.5"]) {
      const value = parseJson(number);
      expect(reasonFor(rules, { content: { a: [{ n: value }] } })).toBe(
        `the number ${number} is not written as an integer within ±(2^53 − 1)`,
      );
      expect(reasonFor(rules, { extra: value })).toBeDefined();
      expect(reasonFor(rules, { unsigned: { age: value } })).toBeUndefined();
    }
  });

  it("takes -0 for the 0 that it is in canonical form", () => {
    const rules = rulesFor("11");
    const zero = aSignedPdu(rules, { content: { n: 0 } });
    const verdict = parsePdu({ ...zero, content: { n: new LosslessNumber("-0") } }, rules);
    expect(verdict).toMatchObject({ ok: true, event: { eventId: eventIdOf(zero, rules) } });
  });
});

describe("an event_id in parsePdu", () => {
  it.each(["1", "2"] as const)("refuses what is no id of a server in version %s", (version) => {
    for (const id of [undefined, null, 1])
      expect(reasonFor(rulesFor(version), { event_id: id })).toBe("event_id is not a string");
    for (const id of ["$a", "a:example.org", "", "$a:b c"]) {
      expect(reasonFor(rulesFor(version), { event_id: id })).toBe("event_id is not an event id");
    }
  });

  it("is refused later, where the id is a hash", () => {
    for (const rules of ALL_RULES.filter(({ eventIdFormat }) => eventIdFormat !== "chosen-by-sender")) {
      expect(reasonFor(rules, { event_id: "$a:example.org" })).toBe(
        "event_id is not part of an event of this room version",
      );
    }
  });
});

describe("parsePdu of a create event", () => {
  const create = { type: "m.room.create", state_key: "", prev_events: [], auth_events: [] };

  it("takes the room's id from its hash in room version 12", () => {
    const rules = rulesFor("12");
    const pdu = aSignedPdu(rules, { ...create, room_id: undefined });
    const eventId = eventIdOf(pdu, rules);
    expect(parsePdu(pdu, rules)).toMatchObject({ ok: true, event: { eventId, roomId: `!${eventId.slice(1)}` } });
    expect(reasonFor(rules, { ...create })).toBe("the create event has a room_id");
    expect(reasonFor(rules, { ...create, state_key: "x", room_id: undefined })).toBe("room_id is not a string");
  });

  it("wants a room id with a server name before", () => {
    for (const rules of ALL_RULES.filter(({ roomIdIsCreateEventHash }) => !roomIdIsCreateEventHash)) {
      expect(reasonFor(rules, create)).toBeUndefined();
      expect(reasonFor(rules, { ...create, room_id: undefined })).toBe("room_id is not a string");
      expect(reasonFor(rules, { ...create, room_id: `!${"a".repeat(43)}` })).toBe("room_id has no server name");
    }
  });
});

describe("parsePdu of a redaction", () => {
  it("wants a text in redacts before room version 11", () => {
    const redaction = { type: "m.room.redaction", redacts: 1 };
    for (const rules of ALL_RULES) {
      expect(reasonFor(rules, redaction)).toBe(Number(rules.version) < 11 ? "redacts is not a string" : undefined);
      expect(reasonFor(rules, { ...redaction, redacts: "$x" })).toBeUndefined();
    }
  });
});
