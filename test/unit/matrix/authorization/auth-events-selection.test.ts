import { describe, expect, it } from "vitest";

import { checkAuthEventsSelection } from "../../../../src/matrix/authorization/auth-events-selection.ts";
import { authEventIds } from "../../../../src/matrix/event.ts";
import type { Event } from "../../../../src/matrix/event.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import { ALICE, aRoom, BOB, CHARLIE, member, openRoom, topic } from "../../../support/builders.ts";

function setUp(version: RoomVersion) {
  const room = aRoom(version);
  const branch = openRoom(room);
  const inState = (type: string, stateKey = ""): Event => {
    const event = room.authState(branch.state)(type, stateKey);
    if (event === undefined) throw new Error(`no ${type}`);
    return event;
  };
  const draft = topic(ALICE, "Hello");
  const usual = [inState("m.room.power_levels"), inState("m.room.member", ALICE)];
  const auth = version === "12" ? usual : [inState("m.room.create"), ...usual];
  const check = (authEvents: readonly Event[], known: readonly (Event | undefined)[] = authEvents) =>
    checkAuthEventsSelection(room.add(branch, { ...draft, auth: authEvents }), known, room.rules).rule;
  return { room, branch, inState, auth, check };
}

describe("checkAuthEventsSelection", () => {
  it.each(["1", "6", "11", "12"] as const)("allows what the selection names, in version %s", (version) => {
    const { auth, check } = setUp(version);
    expect(check(auth)).toBe("auth_events");
    expect(check(auth.toReversed())).toBe("auth_events");
  });

  it("allows fewer than the selection names, but for the create event", () => {
    const { auth, check } = setUp("11");
    expect(check(auth.slice(0, 1))).toBe("auth_events");
    expect(check(auth.slice(1))).toBe("auth_events.no-create");
  });

  it("refuses the create event from version 12 on", () => {
    const { room, auth, check } = setUp("12");
    expect(check([...auth, room.create])).toBe("auth_events.unexpected");
  });

  it("refuses two events of one type and state key, and one that is named twice", () => {
    const { room, branch, auth, check } = setUp("11");
    expect(check([...auth, room.add(branch, member(ALICE, "join"))])).toBe("auth_events.duplicate");
    expect(check([...auth, ...auth.slice(0, 1)])).toBe("auth_events.duplicate");
    expect(check([...auth, ...auth.slice(0, 1)], auth)).toBe("auth_events.duplicate");
  });

  it("refuses what the selection does not name", () => {
    const { auth, inState, room, branch, check } = setUp("11");
    expect(check([...auth, inState("m.room.member", BOB)])).toBe("auth_events.unexpected");
    expect(check([...auth, inState("m.room.join_rules")])).toBe("auth_events.unexpected");
    const message = room.add(branch, { type: "m.room.member", sender: ALICE, content: {} });
    expect(check([...auth.slice(0, 2), message])).toBe("auth_events.unexpected");
  });

  it("refuses what was rejected, what is of another room, and what can't be had", () => {
    const { auth, check } = setUp("11");
    const [first, second, third] = auth;
    if (first === undefined || second === undefined || third === undefined) throw new Error("three are needed");
    expect(check([first, second, { ...third, rejected: true }])).toBe("auth_events.rejected");
    expect(check([first, second, { ...third, roomId: "!other:one.example" }])).toBe("auth_events.other-room");
    expect(check(auth, [first, second, undefined])).toBe("auth_events.missing");
  });

  it("asks nothing of a create event, whose own rules decide", () => {
    const { room } = setUp("11");
    expect(checkAuthEventsSelection(room.create, [], room.rules).rule).toBe("auth_events.create");
  });

  it("takes what the builder selected for every kind of membership", () => {
    const room = aRoom("11");
    const branch = openRoom(room);
    for (const draft of [
      member(CHARLIE, "leave"),
      member(ALICE, "ban", BOB),
      member(ALICE, "invite", "@new:x.example"),
    ]) {
      const event = room.add(branch, draft);
      expect(checkAuthEventsSelection(event, authEventIds(event.pdu).map(room.event), room.rules).allowed).toBe(true);
    }
  });
});
