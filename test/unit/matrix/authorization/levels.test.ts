import { describe, expect, it } from "vitest";

import {
  eventLevel,
  namedLevel,
  parseLevel,
  powerLevelOf,
  requiredLevel,
  userLevel,
} from "../../../../src/matrix/authorization/levels.ts";
import { LosslessNumber } from "../../../../src/matrix/json.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import { rulesFor } from "../../../support/a-pdu.ts";
import { ALICE, aRoom, BOB, CHARLIE, powerLevels } from "../../../support/builders.ts";

describe("parseLevel", () => {
  it.each([
    ["50", 50],
    [" 00100 ", 100],
    ["+100", 100],
    ["-100", -100],
    ["\t-7\n", -7],
    ["0", 0],
    ["-0", 0],
    ["9007199254740993", 9007199254740993n],
  ])("reads the string %j up to version 9", (text, level) => {
    expect(parseLevel(text, rulesFor("9"))).toBe(level);
    expect(parseLevel(text, rulesFor("10"))).toBeUndefined();
  });

  it.each(["", " ", "5.0", "1e3", "0x10", "+-5", "5 0", "five", "- 5", "1_000"])(
    "reads no level out of the string %j",
    (text) => {
      expect(parseLevel(text, rulesFor("1"))).toBeUndefined();
    },
  );

  it.each([
    ["50.57", 50],
    ["-50.57", -50],
    ["5.114698E4", 51146],
    ["1e20", 100000000000000000000n],
    ["0.9", 0],
  ])("cuts the float %s off behind the point", (text, level) => {
    expect(parseLevel(new LosslessNumber(text), rulesFor("5"))).toBe(level);
    expect(parseLevel(new LosslessNumber(text), rulesFor("10"))).toBeUndefined();
  });

  it("refuses what no double can hold", () => {
    expect(parseLevel(new LosslessNumber("1e400"), rulesFor("1"))).toBeUndefined();
  });

  it("tells apart large integers that a number would confuse", () => {
    const [one, other] = ["9007199254740992", "9007199254740993"].map((text) =>
      parseLevel(new LosslessNumber(text), rulesFor("5")),
    );
    expect(one).not.toBe(other);
    expect(one !== undefined && other !== undefined && one < other).toBe(true);
  });

  it.each([true, null, [50], {}, undefined])("reads no level out of %j", (value) => {
    expect(parseLevel(value, rulesFor("1"))).toBeUndefined();
    expect(parseLevel(value, rulesFor("11"))).toBeUndefined();
  });
});

function withLevels(version: RoomVersion, content: JsonObject | undefined) {
  const room = aRoom(version, version === "12" ? { createContent: { additional_creators: [CHARLIE] } } : {});
  const event = content === undefined ? undefined : room.add(room.root, powerLevels(ALICE, content));
  const level = (user: string) => userLevel(user, room.create, event, room.rules);
  return { room, event, level };
}

describe("userLevel", () => {
  it("is 100 for the creator and 0 for others where the room has no power levels", () => {
    const { level } = withLevels("11", undefined);
    expect([level(ALICE), level(BOB)]).toEqual([100, 0]);
  });

  it("is what users says, then users_default, then 0", () => {
    const { level } = withLevels("11", { users: { [BOB]: 7 }, users_default: 3 });
    expect([level(BOB), level(ALICE), level(CHARLIE)]).toEqual([7, 3, 3]);
    expect(withLevels("11", {}).level(ALICE)).toBe(0);
  });

  it("is beyond every number for the creators of version 12, whatever the power levels say", () => {
    const { level } = withLevels("12", { users: { [ALICE]: 1, [BOB]: 100 } });
    expect([level(ALICE), level(CHARLIE), level(BOB)]).toEqual([Infinity, Infinity, 100]);
    expect(withLevels("12", undefined).level(BOB)).toBe(0);
  });

  it("is not taken from what every object inherits", () => {
    expect(withLevels("11", { users: {} }).level("constructor")).toBe(0);
  });
});

describe("eventLevel", () => {
  const level = (content: JsonObject | undefined, type: string, stateKey?: string) => {
    const { room, event } = withLevels("11", content);
    return eventLevel({ type, ...(stateKey === undefined ? {} : { state_key: stateKey }) }, event, room.rules);
  };

  it("is that of the type, then the default for its kind", () => {
    const content = { events: { "m.room.topic": 10 }, state_default: 40, events_default: 20 };
    expect(level(content, "m.room.topic", "")).toBe(10);
    expect(level(content, "m.room.name", "")).toBe(40);
    expect(level(content, "m.room.message")).toBe(20);
    expect(level({}, "m.room.name", "")).toBe(50);
    expect(level({}, "m.room.message")).toBe(0);
    expect(level({ events: {} }, "toString", "")).toBe(50);
  });

  it("is 50 for state and 0 for messages where the room has no power levels", () => {
    expect(level(undefined, "m.room.name", "")).toBe(50);
    expect(level(undefined, "m.room.message")).toBe(0);
  });
});

describe("namedLevel", () => {
  it("falls back to 50 for ban, kick and redact and to 0 for invite", () => {
    const { rules } = aRoom("11");
    expect((["ban", "kick", "redact", "invite"] as const).map((name) => namedLevel(name, undefined, rules))).toEqual([
      50, 50, 50, 0,
    ]);
  });
});

describe("a level that can't be read", () => {
  it("allows nothing: it is neither enough nor less than another", () => {
    const { room, event, level } = withLevels("9", {
      users: { [ALICE]: 100 },
      users_default: "x",
      events: [],
      kick: {},
    });
    const required = eventLevel({ type: "m.room.message" }, event, room.rules);
    for (const [one, other] of [
      [level(BOB), 0],
      [100, level(BOB)],
      [100, required],
      [100, namedLevel("kick", event, room.rules)],
    ] as const) {
      expect([one >= other, one < other]).toEqual([false, false]);
    }
    expect(level(ALICE)).toBe(100);
  });
});

describe("powerLevelOf and requiredLevel", () => {
  it("look the power levels up in a state", () => {
    const room = aRoom("11");
    const state = room.authState(room.send(room.root, powerLevels(ALICE, { users: { [BOB]: 42 }, kick: 33 })).state);
    expect(powerLevelOf(BOB, state, room.rules)).toBe(42);
    expect(requiredLevel("kick", state, room.rules)).toBe(33);
    expect(requiredLevel({ type: "m.room.name", state_key: "" }, state, room.rules)).toBe(50);
  });
});
