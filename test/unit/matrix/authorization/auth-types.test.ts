import { describe, expect, it } from "vitest";

import { authTypesFor } from "../../../../src/matrix/authorization/auth-types.ts";
import type { Pdu } from "../../../../src/matrix/event.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import { rulesFor } from "../../../support/a-pdu.ts";
import { ALICE, BOB, CHARLIE } from "../../../support/builders.ts";

function typesOf(version: RoomVersion, type: string, stateKey: string | undefined, content: JsonObject = {}): string[] {
  const pdu: Pick<Pdu, "type" | "sender" | "content" | "state_key"> = {
    type,
    sender: ALICE,
    content,
    ...(stateKey === undefined ? {} : { state_key: stateKey }),
  };
  return authTypesFor(pdu, rulesFor(version))
    .map(([authType, authKey]) => `${authType.replace("m.room.", "")} ${authKey}`.trim())
    .sort();
}

describe("authTypesFor", () => {
  it("selects nothing for the create event", () => {
    expect(typesOf("1", "m.room.create", "")).toEqual([]);
    expect(typesOf("12", "m.room.create", "")).toEqual([]);
  });

  it("selects create, power levels and the sender's membership, from version 12 on without create", () => {
    expect(typesOf("11", "m.room.message", undefined)).toEqual(["create", `member ${ALICE}`, "power_levels"]);
    expect(typesOf("12", "m.room.message", undefined)).toEqual([`member ${ALICE}`, "power_levels"]);
  });

  it("adds nothing for other state, whoever its state key names", () => {
    const content = { membership: "join" };
    expect(typesOf("12", "m.x", BOB, content)).toEqual([`member ${ALICE}`, "power_levels"]);
    expect(typesOf("12", "m.room.member", undefined, content)).toEqual([`member ${ALICE}`, "power_levels"]);
  });

  it("adds the target's membership to a membership, once", () => {
    expect(typesOf("12", "m.room.member", BOB, { membership: "ban" })).toEqual([
      `member ${ALICE}`,
      `member ${BOB}`,
      "power_levels",
    ]);
    expect(typesOf("12", "m.room.member", ALICE, { membership: "leave" })).toEqual([`member ${ALICE}`, "power_levels"]);
  });

  it.each([
    ["6", "join", true],
    ["6", "invite", true],
    ["6", "knock", false],
    ["7", "knock", true],
    ["7", "leave", false],
  ] as const)("of version %s, %s: join rules %s", (version, membership, expected) => {
    expect(typesOf(version, "m.room.member", ALICE, { membership }).includes("join_rules")).toBe(expected);
  });

  it("adds the third-party invite that the token of an invite names", () => {
    const invite = { membership: "invite", third_party_invite: { signed: { token: "abc" } } };
    expect(typesOf("11", "m.room.member", BOB, invite)).toContain("third_party_invite abc");
    expect(typesOf("11", "m.room.member", BOB, { ...invite, membership: "ban" })).not.toContain(
      "third_party_invite abc",
    );
  });

  it("adds the membership of who lets somebody into a restricted room, from version 8 on", () => {
    const join = { membership: "join", join_authorised_via_users_server: CHARLIE };
    expect(typesOf("8", "m.room.member", ALICE, join)).toContain(`member ${CHARLIE}`);
    expect(typesOf("7", "m.room.member", ALICE, join)).not.toContain(`member ${CHARLIE}`);
    expect(typesOf("8", "m.room.member", BOB, { ...join, membership: "ban" })).not.toContain(`member ${CHARLIE}`);
  });

  it("never names an entry twice", () => {
    const types = typesOf("8", "m.room.member", ALICE, { membership: "join", join_authorised_via_users_server: ALICE });
    expect(new Set(types).size).toBe(types.length);
  });

  it("takes no harm from content of any form", () => {
    for (const content of [
      { membership: 5 },
      { membership: "invite", third_party_invite: "x" },
      { membership: null },
    ]) {
      expect(typesOf("11", "m.room.member", BOB, content)).toContain(`member ${BOB}`);
    }
  });
});
