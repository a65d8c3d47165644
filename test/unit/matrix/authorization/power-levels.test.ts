import { describe, expect, it } from "vitest";

import { authorize } from "../../../../src/matrix/authorization/authorize.ts";
import type { UserId } from "../../../../src/matrix/identifiers.ts";
import { LosslessNumber } from "../../../../src/matrix/json.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import { ALICE, aRoom, BOB, CHARLIE, DORA, member, openRoom, powerLevels, ruleFor } from "../../../support/builders.ts";

const BASE = { users: { [ALICE]: 100, [BOB]: 50 }, events: { "m.room.name": 60, "m.room.topic": 50 }, invite: 10 };

/** The rule that decides when Bob (50) changes the levels of a room from BASE (or other ones) to these. */
function change(to: JsonObject, from: JsonObject = BASE, version: RoomVersion = "11", sender: UserId = BOB): string {
  const room = aRoom(version);
  const branch = room.send(openRoom(room), powerLevels(ALICE, from));
  return ruleFor(room, branch, powerLevels(sender, to)).replace("power_levels", "pl");
}

/** The rule that decides on the first power levels of a room. */
function first(content: JsonObject, version: RoomVersion = "11"): string {
  const room = aRoom(version);
  return ruleFor(room, room.send(room.root, member(ALICE, "join")), powerLevels(ALICE, content)).replace(
    "power_levels",
    "pl",
  );
}

describe("checkPowerLevels", () => {
  it("allows the first power levels, whatever they say", () => {
    expect(first({ users: { [ALICE]: 1000 }, ban: 2000 })).toBe("pl.first");
    expect(first({})).toBe("pl.first");
  });

  it("allows no change, and changes within the sender's power", () => {
    expect(change(BASE)).toBe("pl");
    expect(change({ ...BASE, invite: 50, kick: 50, users_default: -5 })).toBe("pl");
    expect(change({ ...BASE, kick: 40 }, { ...BASE, kick: 50 })).toBe("pl");
    expect(change({ ...BASE, users: { ...BASE.users, [CHARLIE]: 50, [DORA]: 1 } })).toBe("pl");
    expect(change({ ...BASE, events: { "m.room.name": 60, "m.room.topic": 20, "m.x": 50 } })).toBe("pl");
  });

  it.each(["users_default", "events_default", "state_default", "ban", "redact", "kick", "invite"])(
    "guards %s: neither its old nor its new value may be above the sender",
    (name) => {
      expect(change({ ...BASE, [name]: 51 })).toBe("-pl.new-too-high");
      const high = { users: BASE.users, events: { "m.room.power_levels": 0 }, [name]: 51 };
      const low = { ...high, [name]: 50 };
      const { [name]: _gone, ...without } = high;
      const sender = name === "users_default" ? ALICE : BOB;
      const expected = name === "users_default" ? "pl" : "-pl.current-too-high";
      expect(change(low, high, "11", sender)).toBe(expected);
      expect(change(without, high, "11", sender)).toBe(expected);
      expect(change(high, high)).toBe("pl");
    },
  );

  it("guards the entries of events", () => {
    expect(change({ ...BASE, events: { "m.room.name": 50, "m.room.topic": 50 } })).toBe("-pl.current-too-high");
    expect(change({ ...BASE, events: { "m.room.topic": 50 } })).toBe("-pl.current-too-high");
    expect(change({ ...BASE, events: { ...BASE.events, "m.new": 51 } })).toBe("-pl.new-too-high");
    expect(change({ ...BASE, events: { ...BASE.events, "m.room.topic": 51 } })).toBe("-pl.new-too-high");
    expect(change({ users: BASE.users, invite: 10 })).toBe("-pl.current-too-high");
  });

  it("guards the entries of notifications from version 6 on", () => {
    const from = { ...BASE, notifications: { room: 60 } };
    const to = { ...BASE, notifications: { room: 20 } };
    expect(change(to, from, "6")).toBe("-pl.current-too-high");
    expect(change(to, from, "5")).toBe("pl");
    expect(change({ ...BASE, notifications: { room: 51 } }, BASE, "6")).toBe("-pl.new-too-high");
  });

  it("guards users: nobody changes an equal or a superior, or makes one", () => {
    const peers = { ...BASE, users: { ...BASE.users, [CHARLIE]: 50 } };
    expect(change({ ...BASE, users: { ...BASE.users, [ALICE]: 0 } })).toBe("-pl.current-too-high");
    expect(change({ ...BASE, users: { [BOB]: 50 } })).toBe("-pl.current-too-high");
    expect(change(BASE, peers)).toBe("-pl.current-too-high");
    expect(change({ ...BASE, users: { ...BASE.users, [CHARLIE]: 51 } })).toBe("-pl.new-too-high");
    expect(change(peers)).toBe("pl");
  });

  it("lets the sender go down, not up", () => {
    expect(change({ ...BASE, users: { [ALICE]: 100, [BOB]: 10 } })).toBe("pl");
    expect(change({ ...BASE, users: { [ALICE]: 100 } })).toBe("pl");
    expect(change({ ...BASE, users: { [ALICE]: 100, [BOB]: 51 } })).toBe("-pl.new-too-high");
  });

  it("compares by value: a string of the same level is no change up to version 9", () => {
    const strings = { ...BASE, users: { [ALICE]: " +0100 ", [BOB]: "50" }, events: { "m.room.name": "60" } };
    expect(change({ ...strings, events: { ...strings.events, "m.room.topic": "50" } }, BASE, "9")).toBe("pl");
  });

  it.each([
    ["users", "x"],
    ["users", { [ALICE]: "many" }],
    ["users", { [ALICE]: null }],
  ])("refuses %s = %j in every version", (name, value) => {
    expect(first({ [name]: value })).toBe("-pl.malformed");
    expect(first({ [name]: value }, "9")).toBe("-pl.malformed");
  });

  it.each([["alice"], ["@alice"]])("refuses %j among the users in every version", (name) => {
    expect(first({ users: { [name]: 5 } })).toBe("-pl.not-a-user");
    expect(first({ users: { [name]: 5 } }, "1")).toBe("-pl.not-a-user");
  });

  it.each([
    ["events", 5],
    ["events", { "m.room.name": null }],
    ["notifications", { room: "x" }],
    ["ban", "x"],
    ["kick", true],
  ])("refuses %s = %j from version 10 on, and before that once there is something to compare with", (name, value) => {
    expect(first({ [name]: value })).toBe("-pl.malformed");
    expect(first({ [name]: value }, "9")).toBe("pl.first");
    expect(change({ ...BASE, [name]: value }, BASE, "9")).toBe("-pl.malformed");
    expect(change(BASE, { ...BASE, [name]: value }, "9").startsWith("-")).toBe(true);
  });

  it("does not read notifications up to version 5", () => {
    expect(change({ ...BASE, notifications: "x" }, BASE, "5")).toBe("pl");
  });

  it("takes strings up to version 9 and integers alone from version 10 on", () => {
    for (const content of [{ users: { [ALICE]: "100" } }, { ban: "50" }, { events: { x: "1" } }]) {
      expect(first(content, "9")).toBe("pl.first");
      expect(first(content, "10")).toBe("-pl.malformed");
    }
  });

  it("takes floats up to version 5", () => {
    expect(first({ users: { [ALICE]: new LosslessNumber("99.9") } }, "5")).toBe("pl.first");
  });

  it("refuses creators among the users in version 12", () => {
    expect(first({ users: { [ALICE]: 100 } }, "12")).toBe("-pl.creator");
    const room = aRoom("12", { createContent: { additional_creators: [BOB] } });
    const branch = room.send(room.root, member(ALICE, "join"));
    expect(ruleFor(room, branch, powerLevels(ALICE, { users: { [BOB]: 1 } }))).toBe("-power_levels.creator");
    expect(ruleFor(room, branch, powerLevels(ALICE, { users: { [CHARLIE]: 1 } }))).toBe("power_levels.first");
  });

  it("lets the creators of version 12 change everything", () => {
    const from = { users: { [CHARLIE]: 2000 }, ban: 3000, events: { "m.room.power_levels": 9000 } };
    expect(change({ users: {} }, from, "12", ALICE)).toBe("pl");
  });

  it("takes no harm from stored levels of any form", () => {
    const room = aRoom("11");
    const start = openRoom(room);
    const odd = room.add(start, powerLevels(ALICE, { users: [], events: { "m.room.power_levels": {} }, kick: {} }));
    const state = room.authState(start.state);
    const event = room.add(start, powerLevels(ALICE, BASE));
    const verdict = authorize(
      event,
      (type, key) => (type === "m.room.power_levels" ? odd : state(type, key)),
      room.rules,
    );
    expect(verdict.rule).toBe("event.power");
  });
});
