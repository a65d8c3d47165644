import { describe, expect, it } from "vitest";

import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import {
  ALICE,
  aRoom,
  BOB,
  CHARLIE,
  DORA,
  joinRules,
  member,
  openRoom,
  powerLevels,
  ruleFor,
  usersWith,
} from "../../../support/builders.ts";
import type { EventDraft } from "../../../support/builders.ts";

/** The rule that decides on Dora's join, or another draft, in a room with this join rule. */
function joining(
  version: RoomVersion,
  joinRule: string,
  before: readonly EventDraft[] = [],
  draft: EventDraft = member(DORA, "join"),
): string {
  const room = aRoom(version);
  return ruleFor(room, room.send(openRoom(room, { [BOB]: 50 }), joinRules(ALICE, joinRule), ...before), draft);
}

const invited = [member(ALICE, "invite", DORA)];
const vouched = (by: string) => member(DORA, "join", DORA, { join_authorised_via_users_server: by });

describe("the first join", () => {
  it.each(["1", "10", "11", "12"] as const)("is the creator's, in version %s", (version) => {
    const room = aRoom(version);
    expect(ruleFor(room, room.root, member(ALICE, "join"))).toBe("membership.join.creator");
    expect(ruleFor(room, room.root, member(BOB, "join"))).toBe("-membership.join.not-invited");
  });

  it("needs the create event as its only previous event", () => {
    const room = aRoom("11");
    const joined = room.send(room.root, member(ALICE, "join"), member(ALICE, "leave"));
    expect(ruleFor(room, joined, member(ALICE, "join"))).toBe("-membership.join.not-invited");
    const two = { ...member(ALICE, "join"), prev: [room.create, joined.tip] };
    expect(ruleFor(room, room.root, two)).toBe("-membership.join.not-invited");
  });

  it("is content.creator's up to version 10 and the sender's after that", () => {
    const createContent = { creator: BOB };
    const [ten, eleven] = [aRoom("10", { createContent }), aRoom("11", { createContent })];
    expect(ruleFor(ten, ten.root, member(BOB, "join"))).toBe("membership.join.creator");
    expect(ruleFor(ten, ten.root, member(ALICE, "join"))).toBe("-membership.join.not-invited");
    expect(ruleFor(eleven, eleven.root, member(ALICE, "join"))).toBe("membership.join.creator");
    expect(ruleFor(eleven, eleven.root, member(BOB, "join"))).toBe("-membership.join.not-invited");
  });

  it("is not for the additional creators of version 12", () => {
    const room = aRoom("12", { createContent: { additional_creators: [BOB] } });
    expect(ruleFor(room, room.root, member(BOB, "join"))).toBe("-membership.join.not-invited");
  });
});

describe("checkJoin", () => {
  it("refuses joins for others and joins of the banned, whatever the join rule", () => {
    expect(joining("11", "public", [], member(ALICE, "join", DORA))).toBe("-membership.join.other-user");
    expect(joining("11", "public", [member(ALICE, "ban", DORA)])).toBe("-membership.join.banned");
  });

  it("lets anybody into a public room", () => {
    expect(joining("1", "public")).toBe("membership.join.public");
  });

  it("lets the invited and the joined into an invite room", () => {
    expect(joining("11", "invite")).toBe("-membership.join.not-invited");
    expect(joining("11", "invite", invited)).toBe("membership.join.invite");
    expect(joining("11", "invite", [], member(CHARLIE, "join"))).toBe("membership.join.invite");
    expect(joining("11", "invite", [member(CHARLIE, "leave")], member(CHARLIE, "join"))).toBe(
      "-membership.join.not-invited",
    );
  });

  it("takes a room without join rules for an invite room", () => {
    const room = aRoom("11");
    const branch = room.send(room.root, member(ALICE, "join"));
    expect(ruleFor(room, branch, member(DORA, "join"))).toBe("-membership.join.not-invited");
    expect(ruleFor(room, room.send(branch, ...invited), member(DORA, "join"))).toBe("membership.join.invite");
  });

  it("knows the join rule knock from version 7 on", () => {
    expect(joining("6", "knock", invited)).toBe("-membership.join.join-rule");
    expect(joining("7", "knock", invited)).toBe("membership.join.knock");
    expect(joining("7", "knock", [member(DORA, "knock")])).toBe("-membership.join.not-invited");
  });

  it("refuses all joins under a rule that it doesn't know", () => {
    expect(joining("11", "private", invited)).toBe("-membership.join.join-rule");
    expect(joining("7", "restricted", invited)).toBe("-membership.join.join-rule");
    expect(joining("9", "knock_restricted", invited)).toBe("-membership.join.join-rule");
  });

  it.each([
    ["8", "restricted"],
    ["12", "restricted"],
    ["10", "knock_restricted"],
  ] as const)("lets who was invited or is vouched for into a room of version %s that is %s", (version, rule) => {
    expect(joining(version, rule, invited)).toBe("membership.join.restricted.invited");
    expect(joining(version, rule, [], member(CHARLIE, "join"))).toBe("membership.join.restricted.invited");
    expect(joining(version, rule, [], vouched(BOB))).toBe("membership.join.restricted.authorised");
    expect(joining(version, rule)).toBe("-membership.join.restricted.unauthorised");
  });

  it("asks who vouches to be in the room and to have the invite level", () => {
    expect(joining("8", "restricted", [], vouched("@nobody:two.example"))).toBe(
      "-membership.join.restricted.authoriser-not-joined",
    );
    expect(joining("8", "restricted", [member(BOB, "leave")], vouched(BOB))).toBe(
      "-membership.join.restricted.authoriser-not-joined",
    );
    const strict = powerLevels(ALICE, { users: usersWith(aRoom("8"), { [BOB]: 50 }), invite: 50 });
    expect(joining("8", "restricted", [strict], vouched(BOB))).toBe("membership.join.restricted.authorised");
    expect(joining("8", "restricted", [strict], vouched(CHARLIE))).toBe("-membership.join.restricted.authoriser-power");
  });

  it("refuses the banned even when somebody vouches for them", () => {
    expect(joining("8", "restricted", [member(ALICE, "ban", DORA)], vouched(BOB))).toBe("-membership.join.banned");
  });
});
