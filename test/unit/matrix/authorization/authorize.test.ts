import { describe, expect, it } from "vitest";

import { authorize } from "../../../../src/matrix/authorization/authorize.ts";
import type { EventId, UserId } from "../../../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import {
  ALICE,
  aRoom,
  BOB,
  CHARLIE,
  DORA,
  judge,
  member,
  openRoom,
  powerLevels,
  ruleFor,
  topic,
  usersWith,
} from "../../../support/builders.ts";
import type { EventDraft } from "../../../support/builders.ts";

function rule(draft: EventDraft, version: RoomVersion = "11", before: readonly EventDraft[] = []): string {
  const room = aRoom(version);
  return ruleFor(room, room.send(openRoom(room, { [BOB]: 50 }), ...before), draft);
}

const message = (sender: UserId, more: Partial<EventDraft> = {}): EventDraft => ({
  type: "m.room.message",
  sender,
  content: { body: "Hello" },
  ...more,
});

describe("authorize", () => {
  it("says in words why it refuses", () => {
    const room = aRoom("11");
    expect(judge(room, openRoom(room), message(DORA))).toEqual({
      allowed: false,
      rule: "sender.not-joined",
      reason: "@dora:four.example is not in the room",
    });
  });

  it("refuses everything in a room without a create event", () => {
    const room = aRoom("11");
    expect(authorize(room.add(room.root, member(ALICE, "join")), () => undefined, room.rules).rule).toBe(
      "create.missing",
    );
  });

  it("takes the create event that the room id names, and no other, in version 12", () => {
    const [room, other] = [aRoom("12"), aRoom("12", { creator: BOB })];
    const state = room.authState(openRoom(room).state);
    const draft = room.add(openRoom(room), message(ALICE));
    const withCreate = (create: typeof room.create) =>
      authorize(draft, (type, key) => (type === "m.room.create" ? create : state(type, key)), room.rules).rule;
    expect(withCreate(room.create)).toBe("event");
    expect(withCreate(other.create)).toBe("create.other-room");
    expect(withCreate({ ...room.create, rejected: true })).toBe("create.other-room");
  });

  it("closes a room that is not federated to other servers", () => {
    const room = aRoom("11", { createContent: { "m.federate": false } });
    const branch = openRoom(room, {}, []);
    expect(ruleFor(room, branch, member(BOB, "join"))).toBe("-create.not-federated");
    expect(ruleFor(room, branch, member("@neighbor:one.example", "join"))).toBe("membership.join.public");
    const open = aRoom("11", { createContent: { "m.federate": "false" } });
    expect(ruleFor(open, openRoom(open, {}, []), member(BOB, "join"))).toBe("membership.join.public");
  });

  it("lets members send, and nobody else", () => {
    expect(rule(message(CHARLIE))).toBe("event");
    expect(rule(message(DORA))).toBe("-sender.not-joined");
    expect(rule(message(DORA), "11", [member(ALICE, "invite", DORA)])).toBe("-sender.not-joined");
    expect(rule(message(CHARLIE), "11", [member(ALICE, "ban", CHARLIE)])).toBe("-sender.not-joined");
  });

  it("asks for the level of the event's type", () => {
    expect(rule(topic(BOB, "x"))).toBe("event");
    expect(rule(topic(CHARLIE, "x"))).toBe("-event.power");
    const silent = powerLevels(ALICE, { users: usersWith(aRoom("11"), { [BOB]: 50 }), events_default: 50 });
    expect(rule(message(CHARLIE), "11", [silent])).toBe("-event.power");
    expect(rule(message(BOB), "11", [silent])).toBe("event");
  });

  it("keeps a state key that is a user id for that user", () => {
    expect(rule({ type: "m.x", sender: BOB, stateKey: BOB })).toBe("event");
    expect(rule({ type: "m.x", sender: BOB, stateKey: CHARLIE })).toBe("-event.state-key");
    expect(rule({ type: "m.x", sender: BOB, stateKey: `${BOB}_more` })).toBe("-event.state-key");
    expect(rule({ type: "m.x", sender: BOB, stateKey: "x@" })).toBe("event");
  });

  it("lets those who may invite make third-party invites, whatever level their type would ask for", () => {
    const offer: EventDraft = { type: "m.room.third_party_invite", sender: CHARLIE, stateKey: "token" };
    expect(rule(offer)).toBe("third_party_invite");
    const strict = powerLevels(ALICE, { users: usersWith(aRoom("11"), {}), invite: 1 });
    expect(rule(offer, "11", [strict])).toBe("-third_party_invite.power");
  });

  it("gives m.room.aliases to their domain up to version 5, and to the power levels after that", () => {
    const aliases = (sender: UserId, stateKey?: string): EventDraft => ({
      type: "m.room.aliases",
      sender,
      ...(stateKey === undefined ? {} : { stateKey }),
    });
    expect(rule(aliases(DORA, "four.example"), "5")).toBe("aliases");
    expect(rule(aliases(DORA, "one.example"), "5")).toBe("-aliases.other-domain");
    expect(rule(aliases(ALICE, ""), "1")).toBe("-aliases.other-domain");
    expect(rule(aliases(ALICE), "1")).toBe("-aliases.other-domain");
    expect(rule(aliases(DORA, "four.example"), "6")).toBe("-sender.not-joined");
    expect(rule(aliases(BOB, "one.example"), "6")).toBe("event");
  });

  it("checks redactions up to version 2 by power or by the domains of the event ids", () => {
    const redaction = (sender: UserId, redacts: string): EventDraft => ({
      type: "m.room.redaction",
      sender,
      extra: { redacts: redacts as EventId },
    });
    expect(rule(redaction(BOB, "$x:one.example"), "1")).toBe("redaction.power");
    expect(rule(redaction(CHARLIE, "$x:three.example"), "2")).toBe("redaction.same-domain");
    expect(rule(redaction(CHARLIE, "$x:one.example"), "2")).toBe("-redaction.power");
    expect(rule({ type: "m.room.redaction", sender: CHARLIE }, "1")).toBe("-redaction.power");
    expect(rule(redaction(CHARLIE, "$x:one.example"), "3")).toBe("event");
  });

  it("is not misled by a type that every object inherits", () => {
    expect(rule({ type: "constructor", sender: CHARLIE })).toBe("event");
    expect(rule({ type: "constructor", sender: CHARLIE, stateKey: "" })).toBe("-event.power");
  });
});
