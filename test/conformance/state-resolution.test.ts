import { describe, expect, it } from "vitest";

import type { Event } from "../../src/matrix/event.ts";
import type { EventId, UserId } from "../../src/matrix/identifiers.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { resolveState } from "../../src/matrix/state-resolution/resolve.ts";
import { stateDiff, stateGet } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";
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
  topic,
  usersWith,
} from "../support/builders.ts";
import type { Branch, EventDraft, TestRoom } from "../support/builders.ts";

/** The known scenarios of state resolution, the same for every room version: what comes of two branches. */

const resolve = (room: TestRoom, ...states: readonly StateMap[]): StateMap =>
  resolveState({ rules: room.rules, stateSets: states, event: room.event });

function setUp(version: RoomVersion) {
  const room = aRoom(version);
  const start = openRoom(room, { [BOB]: 50 });
  const levels = (sender: UserId, users: Record<string, number>, more = {}): EventDraft =>
    powerLevels(sender, { users: usersWith(room, users), ...more });
  const send = (branch: Branch, ...drafts: readonly EventDraft[]) => room.send(branch, ...drafts);
  return { room, start, levels, send };
}

const idIn = (state: StateMap, type: string, stateKey = ""): EventId | undefined => stateGet(state, type, stateKey);

const sinceV2 = ROOM_VERSIONS.filter((version) => version !== "1");

describe.each(ROOM_VERSIONS)("resolveState in room version %s", (version) => {
  it("keeps what several branches set side by side", () => {
    const { room, start, send } = setUp(version);
    const one = send(start, topic(ALICE, "Hello"));
    const other = send(start, { type: "m.room.name", sender: BOB, stateKey: "", content: { name: "Room" } });
    const state = resolve(room, one.state, other.state);
    expect(idIn(state, "m.room.topic")).toBe(one.tip.eventId);
    expect(idIn(state, "m.room.name")).toBe(other.tip.eventId);
  });

  it("keeps users who join at the same time", () => {
    const { room, start, send } = setUp(version);
    const [one, other] = [send(start, member(DORA, "join")), send(start, member("@eve:five.example", "join"))];
    const state = resolve(room, one.state, other.state);
    expect(idIn(state, "m.room.member", DORA)).toBe(one.tip.eventId);
    expect(idIn(state, "m.room.member", "@eve:five.example")).toBe(other.tip.eventId);
  });

  it("answers a single state, and equal states, with that state", () => {
    const { room, start } = setUp(version);
    expect(resolve(room, start.state)).toBe(start.state);
    const rebuilt = resolve(room, start.state, room.stateOf(...eventsOf(room, start)));
    expect(stateDiff(rebuilt, start.state).size).toBe(0);
    expect(resolve(room, start.state, start.state, start.state)).toEqual(start.state);
  });

  it("lets a ban win over what the banned user did meanwhile to the memberships", () => {
    const { room, start, send } = setUp(version);
    const ban = send(start, member(ALICE, "ban", CHARLIE));
    const rename = send(start, member(CHARLIE, "join", CHARLIE, { displayname: "Charlie the great" }));
    expect(idIn(resolve(room, ban.state, rename.state), "m.room.member", CHARLIE)).toBe(ban.tip.eventId);
  });
});

describe.each(sinceV2)("resolveState in room version %s, by the algorithm v2 or v2.1", (version) => {
  it("lets an admin's ban win over the change of power levels that the banned moderator makes", () => {
    const { room, start, levels, send } = setUp(version);
    const ban = send(start, member(ALICE, "ban", BOB));
    const raise = send(start, levels(BOB, { [BOB]: 50, [CHARLIE]: 50 }), topic(CHARLIE, "Ours now"));
    const state = resolve(room, ban.state, raise.state);
    expect(idIn(state, "m.room.member", BOB)).toBe(ban.tip.eventId);
    expect(idIn(state, "m.room.power_levels")).toBe(idIn(start.state, "m.room.power_levels"));
    expect(idIn(state, "m.room.topic")).toBeUndefined();
  });

  it("lets the older of two changes of power levels by one admin stand below the newer one", () => {
    const { room, start, levels, send } = setUp(version);
    const older = send(start, levels(ALICE, { [BOB]: 50, [CHARLIE]: 10 }));
    const newer = send(start, levels(ALICE, { [BOB]: 50, [CHARLIE]: 20 }));
    expect(idIn(resolve(room, newer.state, older.state), "m.room.power_levels")).toBe(newer.tip.eventId);
  });

  it("tries an admin's power levels before a moderator's, which must be allowed on top of them", () => {
    const { room, start, levels, send } = setUp(version);
    const moderators = send(start, levels(BOB, { [BOB]: 50, [CHARLIE]: 40 }));
    const harmless = send(start, levels(ALICE, { [BOB]: 50 }, { invite: 5 }));
    expect(idIn(resolve(room, harmless.state, moderators.state), "m.room.power_levels")).toBe(moderators.tip.eventId);
    const demoting = send(start, levels(ALICE, { [BOB]: 0 }));
    expect(idIn(resolve(room, demoting.state, moderators.state), "m.room.power_levels")).toBe(demoting.tip.eventId);
  });

  it("refuses a topic of a user who was banned at the same time", () => {
    const { room, start, send } = setUp(version);
    const first = send(start, topic(ALICE, "First"));
    const ban = send(first, member(ALICE, "ban", BOB));
    const late = send(first, topic(BOB, "Late"));
    const state = resolve(room, late.state, ban.state);
    expect(idIn(state, "m.room.topic")).toBe(first.tip.eventId);
    expect(idIn(state, "m.room.member", BOB)).toBe(ban.tip.eventId);
  });

  it("refuses a join that evades a stricter join rule", () => {
    const { room, start, send } = setUp(version);
    const strict = send(start, joinRules(ALICE, "invite"));
    const join = send(start, member(DORA, "join"));
    const state = resolve(room, join.state, strict.state);
    expect(idIn(state, "m.room.join_rules")).toBe(strict.tip.eventId);
    expect(idIn(state, "m.room.member", DORA)).toBeUndefined();
  });

  it("refuses power levels that a demoted moderator gives to others, and all that is built on them", () => {
    const { room, start, levels, send } = setUp(version);
    const demotion = send(start, levels(ALICE, {}));
    const built = send(
      start,
      levels(BOB, { [BOB]: 50, [CHARLIE]: 50 }),
      levels(CHARLIE, { [BOB]: 50, [CHARLIE]: 50, [DORA]: 50 }),
    );
    const state = resolve(room, built.state, demotion.state);
    expect(idIn(state, "m.room.power_levels")).toBe(demotion.tip.eventId);
  });

  it("takes the newest of the topics that rest on the same power levels", () => {
    const { room, start, send } = setUp(version);
    const one = send(start, topic(ALICE, "1"), topic(BOB, "2"), topic(ALICE, "3"));
    const other = send(start, topic(ALICE, "4"), topic(BOB, "5"));
    expect(idIn(resolve(room, one.state, other.state), "m.room.topic")).toBe(other.tip.eventId);
  });

  it("sets topics that rest on later power levels above newer ones that rest on earlier ones", () => {
    const { room, start, levels, send } = setUp(version);
    const later = send(start, levels(ALICE, { [BOB]: 50 }, { invite: 1 }), topic(ALICE, "On later power levels"));
    const newer = send(start, topic(BOB, "Newer, by the clock"));
    expect(newer.tip.pdu.origin_server_ts > later.tip.pdu.origin_server_ts).toBe(true);
    expect(idIn(resolve(room, newer.state, later.state), "m.room.topic")).toBe(later.tip.eventId);
  });

  it("resets a topic whose author lost the power at the same time", () => {
    const { room, start, levels, send } = setUp(version);
    const first = send(start, topic(ALICE, "First"));
    const demotion = send(first, levels(ALICE, { [BOB]: 0 }));
    const vain = send(first, topic(BOB, "In vain"));
    const state = resolve(room, vain.state, demotion.state);
    expect(idIn(state, "m.room.topic")).toBe(first.tip.eventId);
    expect(idIn(state, "m.room.power_levels")).toBe(demotion.tip.eventId);
  });

  it("decides by the time, not by the id, where power and mainline leave it open; then by the id", () => {
    const { room, start } = setUp(version);
    const at = (ts: number, text: string) => room.send(start, { ...topic(ALICE, text), ts });
    for (const text of ["a", "b", "c", "d"]) {
      const [older, newer] = [at(5_000_000, text), at(5_000_001, `${text}!`)];
      expect(idIn(resolve(room, newer.state, older.state), "m.room.topic")).toBe(newer.tip.eventId);
      const same = at(5_000_001, `${text}?`);
      const [, greater] = [same.tip.eventId, newer.tip.eventId].sort();
      expect(idIn(resolve(room, same.state, newer.state), "m.room.topic")).toBe(greater);
    }
  });

  it("lets no rejected event speak", () => {
    const { room, start, send } = setUp(version);
    const first = send(start, topic(ALICE, "First"));
    const badBan = room.add(first, { ...member(BOB, "ban", CHARLIE), rejected: true });
    const badTopic = room.add(first, { ...topic(ALICE, "Rejected"), rejected: true });
    const lateTopic = send(first, topic(ALICE, "Late"));
    const state = resolve(room, lateTopic.state, room.stateOf(...eventsOf(room, first), badBan, badTopic));
    expect(idIn(state, "m.room.member", CHARLIE)).toBe(idIn(start.state, "m.room.member", CHARLIE));
    expect(idIn(state, "m.room.topic")).toBe(lateTopic.tip.eventId);
  });

  it("does not authorise an event by a rejected event that it cites", () => {
    const { room, start } = setUp(version);
    const badJoin = room.add(start, { ...member(DORA, "join"), rejected: true });
    const citing = room.add(start, { ...topic(DORA, "I was never here"), auth: [...citedByAll(room, start), badJoin] });
    const state = resolve(room, start.state, room.stateOf(...eventsOf(room, start), citing));
    expect(idIn(state, "m.room.topic")).toBeUndefined();
  });

  it("resolves three branches as one set", () => {
    const { room, start, send } = setUp(version);
    const ban = send(start, member(ALICE, "ban", BOB));
    const late = send(start, topic(BOB, "Late"));
    const join = send(start, member(DORA, "join"));
    const state = resolve(room, ban.state, late.state, join.state);
    expect(idIn(state, "m.room.member", BOB)).toBe(ban.tip.eventId);
    expect(idIn(state, "m.room.topic")).toBeUndefined();
    expect(idIn(state, "m.room.member", DORA)).toBe(join.tip.eventId);
  });
});

/**
 * The two ways in which v2 loses state that v2.1 mends. In both, what two servers know differs by more than the events
 * they made, so that the states are put together by hand.
 *
 * @see https://github.com/matrix-org/matrix-spec-proposals/pull/4297
 */
describe.each(sinceV2)("a state reset in room version %s", (version) => {
  const isMended = version === "12";

  it("loses join rules whose author left, unless the checks start from the empty state", () => {
    const room = aRoom(version);
    const start = openRoom(room);
    const strict = room.send(start, joinRules(ALICE, "invite"));
    const left = room.send(strict, member(ALICE, "leave"));
    const [bob, charlie] = [BOB, CHARLIE].map((user) =>
      room.add(left, member(user, "join", user, { displayname: "new" })),
    );
    const [bobBefore, charlieBefore] = [BOB, CHARLIE].map((user) => room.authState(start.state)("m.room.member", user));
    if (!bob || !charlie || !bobBefore || !charlieBefore) throw new Error("both are in the room");
    const agreed = [room.create, eventIn(room, start, "m.room.power_levels"), left.tip];
    const seenByBob = room.stateOf(...agreed, strict.tip, bob, charlieBefore);
    const seenByCharlie = room.stateOf(...agreed, eventIn(room, start, "m.room.join_rules"), bobBefore, charlie);
    const state = resolve(room, seenByBob, seenByCharlie);
    expect(idIn(state, "m.room.join_rules")).toBe(isMended ? strict.tip.eventId : undefined);
    expect(idIn(state, "m.room.member", BOB)).toBe(bob.eventId);
    expect(idIn(state, "m.room.member", CHARLIE)).toBe(charlie.eventId);
    expect(idIn(state, "m.room.member", ALICE)).toBe(left.tip.eventId);
  });

  it("falls back to old power levels, unless what lies between the conflicted events is replayed", () => {
    const room = aRoom(version);
    const start = openRoom(room);
    const second = room.send(start, powerLevels(ALICE, { users: usersWith(room, { [BOB]: 50 }) }));
    const third = room.send(second, powerLevels(BOB, { users: usersWith(room, { [BOB]: 50, [CHARLIE]: 50 }) }));
    const zara = room.send(third, member("@zara:six.example", "join"));
    const eve = room.send(third, member("@eve:five.example", "join"), member("@eve:five.example", "join"));
    const agreed = eventsOf(room, start).filter(({ pdu }) => pdu.type !== "m.room.power_levels");
    const seenByEve = room.stateOf(...agreed, eventIn(room, start, "m.room.power_levels"), eve.tip);
    const seenByZara = room.stateOf(...agreed, third.tip, zara.tip);
    const state = resolve(room, seenByEve, seenByZara);
    const expected = isMended ? third.tip.eventId : idIn(start.state, "m.room.power_levels");
    expect(idIn(state, "m.room.power_levels")).toBe(expected);
    expect(idIn(state, "m.room.member", "@zara:six.example")).toBe(zara.tip.eventId);
    expect(idIn(state, "m.room.member", "@eve:five.example")).toBe(eve.tip.eventId);
  });
});

function eventIn(room: TestRoom, branch: Branch, type: string, stateKey = ""): Event {
  const event = room.authState(branch.state)(type, stateKey);
  if (event === undefined) throw new Error(`the branch has no ${type}`);
  return event;
}

/** The events of a branch's state. */
function eventsOf(room: TestRoom, branch: Branch): readonly Event[] {
  return [...room.events.values()].filter(
    ({ eventId, pdu }) => pdu.state_key !== undefined && idIn(branch.state, pdu.type, pdu.state_key) === eventId,
  );
}

/** What every event cites. */
function citedByAll(room: TestRoom, branch: Branch): readonly Event[] {
  return room.rules.roomIdIsCreateEventHash
    ? [eventIn(room, branch, "m.room.power_levels")]
    : [room.create, eventIn(room, branch, "m.room.power_levels")];
}
