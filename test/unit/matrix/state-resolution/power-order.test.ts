import { describe, expect, it } from "vitest";

import type { Event } from "../../../../src/matrix/event.ts";
import type { UserId } from "../../../../src/matrix/identifiers.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import {
  isPowerEvent,
  reverseTopologicalPowerOrder,
  withConflictedAuthChains,
} from "../../../../src/matrix/state-resolution/power-order.ts";
import { roomEvents } from "../../../../src/matrix/state-resolution/room-events.ts";
import {
  ALICE,
  aRoom,
  BOB,
  CHARLIE,
  joinRules,
  member,
  openRoom,
  powerLevels,
  topic,
  usersWith,
} from "../../../support/builders.ts";

function setUp(version: RoomVersion = "11") {
  const room = aRoom(version);
  const start = openRoom(room, { [BOB]: 50 });
  const events = roomEvents(room.rules, room.event);
  const order = (...list: readonly Event[]) =>
    reverseTopologicalPowerOrder(new Set(list.map(({ eventId }) => eventId)), events);
  return { room, start, events, order };
}

describe("isPowerEvent", () => {
  it("is true for what might take somebody's power away", () => {
    const { room, start } = setUp();
    const drafts = [
      powerLevels(ALICE, {}),
      joinRules(ALICE, "invite"),
      member(ALICE, "ban", BOB),
      member(ALICE, "leave", BOB),
    ];
    expect(drafts.map((draft) => isPowerEvent(room.add(start, draft)))).toEqual([true, true, true, true]);
    expect(isPowerEvent(room.create)).toBe(true);
  });

  it("is false for all else", () => {
    const { room, start } = setUp();
    const drafts = [
      topic(ALICE, "x"),
      member(BOB, "leave"),
      member(BOB, "join"),
      member(ALICE, "invite", BOB),
      { ...powerLevels(ALICE, {}), stateKey: "x" },
      { type: "m.room.member", sender: ALICE, content: { membership: "ban" } },
    ];
    expect(drafts.map((draft) => isPowerEvent(room.add(start, draft)))).toEqual(drafts.map(() => false));
  });
});

describe("withConflictedAuthChains", () => {
  it("adds what the power events cite within the full conflicted set, and what these cite", () => {
    const { room, start, events } = setUp();
    const one = room.send(start, powerLevels(ALICE, { users: usersWith(room, { [BOB]: 60 }) }));
    const two = room.send(one, member(BOB, "join", BOB, { displayname: "B" }));
    const ban = room.send(two, member(BOB, "ban", CHARLIE));
    const ids = (...list: readonly Event[]) => new Set(list.map(({ eventId }) => eventId));
    expect(withConflictedAuthChains([ban.tip.eventId], ids(one.tip, two.tip, ban.tip), events)).toEqual(
      ids(ban.tip, two.tip, one.tip),
    );
    expect(withConflictedAuthChains([ban.tip.eventId], ids(ban.tip), events)).toEqual(ids(ban.tip));
  });
});

describe("reverseTopologicalPowerOrder", () => {
  it("puts auth events first, even those of lesser power", () => {
    const { room, start, order } = setUp();
    const byBob = room.send(start, powerLevels(BOB, { users: usersWith(room, { [BOB]: 50, [CHARLIE]: 1 }) }));
    const byAlice = room.send(byBob, joinRules(ALICE, "invite"));
    expect(order(byAlice.tip, byBob.tip)).toEqual([byBob.tip, byAlice.tip]);
  });

  it("then goes by the sender's power, by age and by id", () => {
    const { room, start, order } = setUp();
    const at = (sender: UserId, ts: number, rule: string) => room.add(start, { ...joinRules(sender, rule), ts });
    const [weak, strong] = [at(BOB, 5000, "a"), at(ALICE, 9000, "b")];
    const older = at(ALICE, 8999, "c");
    expect(order(weak, strong, older)).toEqual([older, strong, weak]);
    const same = ["d", "e", "f", "g", "h"].map((rule) => at(ALICE, 9000, rule));
    const sorted = same.toSorted((one, other) => (one.eventId < other.eventId ? -1 : 1));
    expect(order(...same.toReversed())).toEqual(sorted);
  });

  it("ranks the creators of version 12 above every number", () => {
    const { room, start, order } = setUp("12");
    const strong = room.send(start, powerLevels(ALICE, { users: { [BOB]: 9_000_000 } }));
    const byBob = room.add(strong, { ...joinRules(BOB, "invite"), ts: 1 });
    const byAlice = room.add(strong, { ...joinRules(ALICE, "invite"), ts: 2 });
    expect(order(byBob, byAlice)).toEqual([byAlice, byBob]);
  });

  it("sorts many events as a plain sort does where none cites another", () => {
    const { room, start, order } = setUp();
    const many = Array.from({ length: 300 }, (_, index) =>
      room.add(start, { ...joinRules(index % 3 === 0 ? ALICE : BOB, `${index}`), ts: (index * 7919) % 101 }),
    );
    const level = (event: Event): number => (event.pdu.sender === ALICE ? 100 : 50);
    const expected = many.toSorted(
      (one, other) =>
        level(other) - level(one) ||
        Number(one.pdu.origin_server_ts) - Number(other.pdu.origin_server_ts) ||
        (one.eventId < other.eventId ? -1 : 1),
    );
    expect(order(...many)).toEqual(expected);
  });
});
