import { describe, expect, it } from "vitest";
import { redact } from "../../../src/matrix/redaction.ts";
import { ROOM_VERSIONS } from "../../../src/matrix/room-versions.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { aPdu, rulesFor } from "../../support/a-pdu.ts";

interface Case {
  readonly type: string;
  readonly content: Record<string, unknown>;
  /** What stays, by the first room version it holds for. */
  readonly kept: Partial<Record<RoomVersion, Record<string, unknown>>>;
}

const LEVELS = {
  ban: 1,
  events: { "m.room.name": 2 },
  events_default: 3,
  kick: 4,
  redact: 5,
  state_default: 6,
  users: { "@a:b": 7 },
  users_default: 8,
};

const CASES: readonly Case[] = [
  { type: "m.room.message", content: { body: "x", membership: "join" }, kept: { 1: {} } },
  {
    type: "m.room.member",
    content: {
      membership: "join",
      displayname: "x",
      join_authorised_via_users_server: "@a:b",
      third_party_invite: { signed: { token: "t" }, display_name: "x" },
    },
    kept: {
      1: { membership: "join" },
      9: { membership: "join", join_authorised_via_users_server: "@a:b" },
      11: {
        membership: "join",
        join_authorised_via_users_server: "@a:b",
        third_party_invite: { signed: { token: "t" } },
      },
    },
  },
  {
    type: "m.room.create",
    content: { creator: "@a:b", room_version: "9", "m.federate": false },
    kept: { 1: { creator: "@a:b" }, 11: { creator: "@a:b", room_version: "9", "m.federate": false } },
  },
  {
    type: "m.room.join_rules",
    content: { join_rule: "restricted", allow: [], other: 1 },
    kept: { 1: { join_rule: "restricted" }, 8: { join_rule: "restricted", allow: [] } },
  },
  {
    type: "m.room.power_levels",
    content: { ...LEVELS, invite: 9, historical: 1, notifications: { room: 1 } },
    kept: { 1: LEVELS, 11: { ...LEVELS, invite: 9 } },
  },
  { type: "m.room.aliases", content: { aliases: ["#a:b"], other: 1 }, kept: { 1: { aliases: ["#a:b"] }, 6: {} } },
  {
    type: "m.room.history_visibility",
    content: { history_visibility: "shared", other: 1 },
    kept: { 1: { history_visibility: "shared" } },
  },
  { type: "m.room.redaction", content: { redacts: "$x", reason: "x" }, kept: { 1: {}, 11: { redacts: "$x" } } },
];

function keptIn(version: RoomVersion, kept: Case["kept"]): Record<string, unknown> | undefined {
  const reached = ROOM_VERSIONS.slice(0, ROOM_VERSIONS.indexOf(version) + 1);
  return reached.map((earlier) => kept[earlier]).findLast((content) => content !== undefined);
}

describe.each(ROOM_VERSIONS)("redact in room version %s", (version) => {
  const rules = rulesFor(version);

  it.each(CASES)("keeps of $type what the version keeps", ({ type, content, kept }) => {
    const redacted = redact(aPdu(rules, { type, content }), rules);
    expect(redacted.content).toEqual(keptIn(version, kept));
  });

  it("keeps the top-level keys of the version", () => {
    const extra = {
      origin: "example.org",
      membership: "join",
      prev_state: [],
      unsigned: { age: 1 },
      redacts: "$x",
      x: 1,
    };
    const signed = { hashes: { sha256: "h" }, signatures: { "example.org": { "ed25519:a": "s" } }, state_key: "" };
    const pdu = aPdu(rules, { ...extra, ...signed });
    const { content: _, ...expected } = aPdu(rules, signed);
    const obsolete = { origin: "example.org", membership: "join", prev_state: [] };
    const { content: __, ...redacted } = redact(pdu, rules);
    expect(redacted).toEqual({ ...expected, ...(Number(version) < 11 ? obsolete : {}) });
  });

  it("adds no key that was absent", () => {
    const redacted = redact(aPdu(rules, { type: "m.room.member", content: {} }), rules);
    expect(redacted.content).toEqual({});
    expect(Object.keys(redacted)).not.toContain("state_key");
  });
});

describe("redact", () => {
  it("keeps an empty third_party_invite where nothing of it was signed, as other servers do", () => {
    const rules = rulesFor("11");
    const pdu = aPdu(rules, { type: "m.room.member", content: { third_party_invite: { display_name: "x" } } });
    expect(redact(pdu, rules).content).toEqual({ third_party_invite: {} });
    const odd = aPdu(rules, { type: "m.room.member", content: { third_party_invite: "x" } });
    expect(redact(odd, rules).content).toEqual({});
  });
});
