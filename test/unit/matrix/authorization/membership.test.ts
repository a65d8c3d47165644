import { describe, expect, it } from "vitest";

import type { JsonObject } from "../../../../src/matrix/json.ts";
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

/** The rule that decides on a draft in a room where Alice rules, Bob has 50, Charlie 0, and Dora is not in. */
function rule(draft: EventDraft, before: readonly EventDraft[] = [], version: RoomVersion = "11"): string {
  const room = aRoom(version);
  return ruleFor(room, room.send(openRoom(room, { [BOB]: 50 }), ...before), draft);
}

const levels = (content: JsonObject) =>
  powerLevels(ALICE, { users: usersWith(aRoom("11"), { [BOB]: 50 }), ...content });

describe("checkMembership", () => {
  it("refuses what has no state key, no membership, an unknown one, or no user", () => {
    expect(rule({ type: "m.room.member", sender: CHARLIE, content: { membership: "join" } })).toBe(
      "-membership.no-state-key",
    );
    expect(rule({ type: "m.room.member", sender: CHARLIE, stateKey: CHARLIE })).toBe("-membership.none");
    expect(rule(member(CHARLIE, "join", CHARLIE, { membership: ["join"] }))).toBe("-membership.none");
    expect(rule(member(CHARLIE, "here"))).toBe("-membership.unknown");
    expect(rule({ ...member(ALICE, "invite"), stateKey: "dora" })).toBe("-membership.not-a-user");
  });
});

describe("an invite", () => {
  it("is allowed to who is in the room and has the level", () => {
    expect(rule(member(CHARLIE, "invite", DORA))).toBe("membership.invite");
    expect(rule(member(CHARLIE, "invite", DORA), [levels({ invite: 1 })])).toBe("-membership.invite.power");
    expect(rule(member(BOB, "invite", DORA), [levels({ invite: 50 })])).toBe("membership.invite");
  });

  it("is refused to outsiders, whatever their level", () => {
    expect(rule(member(DORA, "invite", DORA))).toBe("-membership.invite.sender-not-joined");
    expect(rule(member(BOB, "invite", DORA), [member(BOB, "leave")])).toBe("-membership.invite.sender-not-joined");
  });

  it("is refused for who is in the room or banned, and allowed again after a leave", () => {
    expect(rule(member(ALICE, "invite", CHARLIE))).toBe("-membership.invite.target-joined");
    expect(rule(member(ALICE, "invite", CHARLIE), [member(ALICE, "ban", CHARLIE)])).toBe(
      "-membership.invite.target-banned",
    );
    expect(rule(member(ALICE, "invite", CHARLIE), [member(CHARLIE, "leave")])).toBe("membership.invite");
  });
});

describe("a leave", () => {
  it("of one's own is allowed from join, invite and (version 7 on) knock", () => {
    expect(rule(member(CHARLIE, "leave"))).toBe("membership.leave.own");
    expect(rule(member(DORA, "leave"), [member(ALICE, "invite", DORA)])).toBe("membership.leave.own");
    const knocked = [joinRules(ALICE, "knock"), member(DORA, "knock")];
    expect(rule(member(DORA, "leave"), knocked, "7")).toBe("membership.leave.own");
    expect(rule(member(DORA, "leave"), knocked, "6")).toBe("-membership.leave.not-in-room");
  });

  it("of one's own is refused to who never was in, has left or is banned", () => {
    expect(rule(member(DORA, "leave"))).toBe("-membership.leave.not-in-room");
    expect(rule(member(CHARLIE, "leave"), [member(CHARLIE, "leave")])).toBe("-membership.leave.not-in-room");
    expect(rule(member(CHARLIE, "leave"), [member(ALICE, "ban", CHARLIE)])).toBe("-membership.leave.not-in-room");
  });

  it("of another (a kick) needs the kick level and more power than the target", () => {
    expect(rule(member(BOB, "leave", CHARLIE))).toBe("membership.leave.kick");
    expect(rule(member(CHARLIE, "leave", BOB))).toBe("-membership.leave.kick-power");
    expect(rule(member(BOB, "leave", ALICE))).toBe("-membership.leave.kick-power");
    expect(rule(member(BOB, "leave", CHARLIE), [levels({ kick: 51 })])).toBe("-membership.leave.kick-power");
    expect(rule(member(BOB, "leave", CHARLIE), [levels({ users_default: 50 })])).toBe("-membership.leave.kick-power");
    expect(rule(member(DORA, "leave", CHARLIE))).toBe("-membership.leave.sender-not-joined");
  });

  it("of a banned user (an unban) needs the ban level as well as the kick level", () => {
    const banned = [member(ALICE, "ban", CHARLIE)];
    expect(rule(member(BOB, "leave", CHARLIE), banned)).toBe("membership.leave.unban");
    expect(rule(member(BOB, "leave", CHARLIE), [...banned, levels({ ban: 60 })])).toBe("-membership.leave.unban-power");
    expect(rule(member(BOB, "leave", CHARLIE), [...banned, levels({ kick: 60 })])).toBe("-membership.leave.kick-power");
  });
});

describe("a ban", () => {
  it("needs the ban level and more power than the target, who need not be in the room", () => {
    expect(rule(member(BOB, "ban", CHARLIE))).toBe("membership.ban");
    expect(rule(member(BOB, "ban", DORA))).toBe("membership.ban");
    expect(rule(member(BOB, "ban", ALICE))).toBe("-membership.ban.power");
    expect(rule(member(BOB, "ban", BOB))).toBe("-membership.ban.power");
    expect(rule(member(CHARLIE, "ban", DORA))).toBe("-membership.ban.power");
    expect(rule(member(BOB, "ban", CHARLIE), [levels({ ban: 51 })])).toBe("-membership.ban.power");
    expect(rule(member(DORA, "ban", CHARLIE))).toBe("-membership.ban.sender-not-joined");
  });

  it("of one creator by another is refused in version 12, where nothing is above them", () => {
    const room = aRoom("12", { createContent: { additional_creators: [BOB] } });
    const branch = openRoom(room);
    expect(ruleFor(room, branch, member(ALICE, "ban", BOB))).toBe("-membership.ban.power");
    expect(ruleFor(room, branch, member(BOB, "ban", ALICE))).toBe("-membership.ban.power");
    expect(ruleFor(room, branch, member(BOB, "ban", CHARLIE))).toBe("membership.ban");
  });
});

describe("a knock", () => {
  const open = [joinRules(ALICE, "knock")];

  it("exists from version 7 on, and for knock_restricted from version 10 on", () => {
    expect(rule(member(DORA, "knock"), open, "6")).toBe("-membership.unknown");
    expect(rule(member(DORA, "knock"), open, "7")).toBe("membership.knock");
    expect(rule(member(DORA, "knock"), [joinRules(ALICE, "knock_restricted")], "9")).toBe(
      "-membership.knock.join-rule",
    );
    expect(rule(member(DORA, "knock"), [joinRules(ALICE, "knock_restricted")], "10")).toBe("membership.knock");
    expect(rule(member(DORA, "knock"))).toBe("-membership.knock.join-rule");
  });

  it("is for oneself, and not for who is in, invited or banned", () => {
    expect(rule(member(DORA, "knock", CHARLIE), open)).toBe("-membership.knock.other-user");
    expect(rule(member(CHARLIE, "knock"), open)).toBe("-membership.knock.membership");
    expect(rule(member(DORA, "knock"), [...open, member(ALICE, "invite", DORA)])).toBe("-membership.knock.membership");
    expect(rule(member(DORA, "knock"), [...open, member(ALICE, "ban", DORA)])).toBe("-membership.knock.membership");
    expect(rule(member(DORA, "knock"), [...open, member(DORA, "knock")])).toBe("membership.knock");
  });
});
