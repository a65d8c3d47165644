import { describe, expect, it } from "vitest";

import { sha1OfEventId } from "../../../../src/matrix/hashes.ts";
import { resolveState } from "../../../../src/matrix/state-resolution/resolve.ts";
import { stateApply, stateGet, stateKeyOf } from "../../../../src/matrix/state.ts";
import type { StateMap } from "../../../../src/matrix/state.ts";
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
} from "../../../support/builders.ts";

function setUp() {
  const room = aRoom("1");
  const start = openRoom(room, { [BOB]: 50 });
  const resolve = (...states: readonly StateMap[]): StateMap =>
    resolveState({ rules: room.rules, stateSets: states, event: room.event });
  const levels = (users: Record<string, number>) => powerLevels(ALICE, { users: { [ALICE]: 100, ...users } });
  return { room, start, resolve, levels };
}

describe("resolveStateV1", () => {
  it("takes the deepest event of a key, and of equally deep ones that with the least SHA-1 of its id", () => {
    const { room, start, resolve } = setUp();
    const shallow = room.send(start, topic(ALICE, "1"));
    const deep = room.send(start, topic(ALICE, "2"), topic(ALICE, "3"));
    expect(stateGet(resolve(shallow.state, deep.state), "m.room.topic", "")).toBe(deep.tip.eventId);
    const sameDepth = [1, 2, 3].map((index) => room.send(start, topic(ALICE, `same ${index}`)));
    const [least] = sameDepth
      .map(({ tip }) => tip.eventId)
      .sort((one, other) => (sha1OfEventId(one) < sha1OfEventId(other) ? -1 : 1));
    expect(stateGet(resolve(...sameDepth.map(({ state }) => state)), "m.room.topic", "")).toBe(least);
  });

  it("passes over deeper events that the resolved state does not allow, and falls back to the least deep", () => {
    const { room, start, resolve, levels } = setUp();
    const first = room.send(start, topic(ALICE, "First"));
    const demoted = room.send(first, levels({ [BOB]: 0 }), levels({ [BOB]: 0 }));
    const vain = room.send(first, topic(BOB, "In vain"), topic(BOB, "In vain again"));
    const state = resolve(demoted.state, vain.state);
    expect(stateGet(state, "m.room.topic", "")).toBe(first.tip.eventId);
    const only = [room.send(start, topic(BOB, "1")), room.send(start, topic(BOB, "2"), topic(BOB, "3"))];
    const onTop = stateApply(demoted.state, [[stateKeyOf("m.room.topic", ""), null]]);
    const shallow = only[0]?.tip.eventId;
    expect(stateGet(resolve(onTop, ...only.map((one) => one.state)), "m.room.topic", "")).toBe(shallow);
  });

  it("does not take a key that some states lack for conflicted", () => {
    const { room, start, resolve } = setUp();
    const join = room.send(start, member(DORA, "join"));
    const strict = room.send(start, joinRules(ALICE, "invite"));
    const state = resolve(join.state, strict.state);
    expect(stateGet(state, "m.room.member", DORA)).toBe(join.tip.eventId);
    expect(stateGet(state, "m.room.join_rules", "")).toBe(strict.tip.eventId);
  });

  it("walks conflicting power levels up by depth, each checked against the one before", () => {
    const { room, start, resolve, levels } = setUp();
    const demotion = room.send(start, levels({ [BOB]: 0 }));
    const byBob = powerLevels(BOB, { users: { [ALICE]: 100, [BOB]: 50, [CHARLIE]: 50 } });
    // Bob's are deeper, so they are checked when he is demoted already; then those of Alice on top of them aren't tried.
    const deeper = room.send(start, topic(BOB, "x"), byBob);
    const deepest = room.send(deeper, levels({ [BOB]: 50, [DORA]: 1 }));
    const powerIn = (state: StateMap) => stateGet(state, "m.room.power_levels", "");
    expect(powerIn(resolve(demotion.state, deeper.state))).toBe(demotion.tip.eventId);
    expect(powerIn(resolve(deepest.state, demotion.state))).toBe(deepest.tip.eventId);
    expect(powerIn(resolve(deepest.state, demotion.state, deeper.state))).toBe(demotion.tip.eventId);
    expect(powerIn(resolve(deeper.state, start.state))).toBe(deeper.tip.eventId);
  });

  it("resolves members by the resolved power levels and join rules, not by each other", () => {
    const { room, start, resolve } = setUp();
    const ban = room.send(start, member(ALICE, "ban", CHARLIE), topic(ALICE, "x"));
    const rejoin = room.send(start, topic(ALICE, "y"), member(CHARLIE, "join", CHARLIE, { displayname: "C" }));
    expect(stateGet(resolve(ban.state, rejoin.state), "m.room.member", CHARLIE)).toBe(
      stateGet(ban.state, "m.room.member", CHARLIE),
    );
  });

  it("leaves rejected and unknown events out", () => {
    const { room, start, resolve } = setUp();
    const fine = room.send(start, topic(ALICE, "Fine"));
    const deeper = room.add(fine, { ...topic(ALICE, "Rejected"), rejected: true });
    const withRejected = stateApply(fine.state, [[stateKeyOf("m.room.topic", ""), deeper.eventId]]);
    expect(stateGet(resolve(fine.state, withRejected), "m.room.topic", "")).toBe(fine.tip.eventId);
    const withUnknown = stateApply(fine.state, [[stateKeyOf("m.room.topic", ""), "$unknown:x"]]);
    expect(stateGet(resolve(withUnknown, fine.state), "m.room.topic", "")).toBe(fine.tip.eventId);
  });
});
