import { describe, expect, it } from "vitest";
import type { Event } from "../../../src/matrix/event.ts";
import type { UserId } from "../../../src/matrix/identifiers.ts";
import type { JsonObject } from "../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import type { PowerState } from "../../../src/rooms/read/power-state.ts";
import { closedPowerLevels, upgradedPowerLevels } from "../../../src/rooms/send/upgraded-power-levels.ts";
import { rulesFor } from "../../support/a-pdu.ts";
import { ALICE, BOB, aRoom, powerLevels } from "../../support/builders.ts";

/** A room of ALICE's with these power levels. */
function power(version: RoomVersion, content: JsonObject | undefined): PowerState {
  const room = aRoom(version);
  const levels = content === undefined ? undefined : room.add(room.root, powerLevels(ALICE, content));
  const state = (type: string): Event | undefined => (type === "m.room.create" ? room.create : levels);
  return { rules: room.rules, state };
}

const upgraded = (old: PowerState, to: RoomVersion, ...creators: [UserId, ...UserId[]]) =>
  upgradedPowerLevels(old, rulesFor(to), { creators, banned: [] });

describe("upgradedPowerLevels", () => {
  it("keeps what stands there", () => {
    const content = { users: { [ALICE]: 100, [BOB]: 50 }, events: { "m.room.name": 60 }, ban: 70, other: "kept" };
    expect(upgraded(power("10", content), "11", ALICE)).toEqual({ first: content, last: undefined });
  });

  it("gives the maker the power to copy, and takes it back afterwards", () => {
    const content = { users: { [ALICE]: 100, [BOB]: 60 }, events: { "m.room.server_acl": 110 } };
    const { first, last } = upgraded(power("10", content), "11", BOB);
    expect(first).toEqual({ ...content, users: { [ALICE]: 100, [BOB]: 110 } });
    expect(last).toEqual(content);
  });

  it("lifts the maker above those whom the new room bans", () => {
    const content = { users: { [ALICE]: 100, [BOB]: 100 } };
    const people = { creators: [ALICE], banned: [BOB] } as const;
    const { first, last } = upgradedPowerLevels(power("10", content), rulesFor("11"), people);
    expect(first).toEqual({ users: { [ALICE]: 101, [BOB]: 100 } });
    expect(last).toEqual(content);
  });

  it("does so for who has their power by users_default", () => {
    const { first, last } = upgraded(power("10", { users_default: 80 }), "11", BOB);
    expect(first).toEqual({ users_default: 80, users: { [BOB]: 100 } });
    expect(last).toEqual({ users_default: 80, users: {} });
  });

  it("lists no creators from room version 12 on", () => {
    const content = { users: { [ALICE]: 100, [BOB]: 100, "@carol:x.example": 50 } };
    const { first, last } = upgraded(power("11", content), "12", ALICE, BOB);
    expect(first).toEqual({ users: { "@carol:x.example": 50 } });
    expect(last).toBeUndefined();
  });

  it("lists the creators of a room of version 12 where the new one is older", () => {
    const content = { users: { [BOB]: 100 }, events: { "m.room.tombstone": 150 } };
    const { first, last } = upgraded(power("12", content), "11", ALICE);
    expect(first).toEqual({ ...content, users: { [BOB]: 100, [ALICE]: 150 } });
    expect(last).toBeUndefined();
  });

  it("writes as numbers what old versions allow in strings, and leaves out what is no level", () => {
    const content = {
      users: { [ALICE]: " 0100 ", [BOB]: "many" },
      kick: "50",
      events: 7,
      notifications: { room: "20" },
    };
    const { first } = upgraded(power("9", content), "11", ALICE);
    expect(first).toEqual({ users: { [ALICE]: 100 }, kick: 50, notifications: { room: 20 } });
  });

  it("needs no power levels", () => {
    expect(upgraded(power("10", undefined), "11", ALICE).first).toEqual({ users: { [ALICE]: 100 } });
  });
});

describe("closedPowerLevels", () => {
  it("raises what it takes to talk and to invite above everybody's level", () => {
    const content = { users: { [ALICE]: 100 }, users_default: 60, invite: 0, kick: 50 };
    expect(closedPowerLevels(power("11", content))).toEqual({ ...content, events_default: 61, invite: 61 });
  });

  it("lowers nothing, and has nothing to do where the room is closed", () => {
    expect(closedPowerLevels(power("11", { invite: 90 }))).toEqual({ invite: 90, events_default: 50 });
    expect(closedPowerLevels(power("11", { invite: 90, events_default: 50 }))).toBeUndefined();
  });
});
