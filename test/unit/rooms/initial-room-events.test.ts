import { describe, expect, it } from "vitest";
import { createContentOf, initialRoomEvents } from "../../../src/rooms/send/initial-room-events.ts";
import type { NewRoom } from "../../../src/rooms/send/initial-room-events.ts";
import { ALL_RULES, rulesFor } from "../../support/a-pdu.ts";

const ALICE = "@alice:example.org";
const BOB = "@bob:example.org";

function aNewRoom(changes: Partial<NewRoom> = {}): NewRoom {
  return {
    version: "11",
    preset: "private_chat",
    invite: [],
    isDirect: false,
    initialState: [],
    creationContent: {},
    powerLevelOverride: {},
    ...changes,
  };
}

describe("createContentOf", () => {
  it.each(ALL_RULES)("names the creator up to version 10 only ($version)", (rules) => {
    const asked = { creator: "@mallory:example.org", room_version: "99", "m.federate": false };
    const content = createContentOf(aNewRoom({ creationContent: asked }), ALICE, rules);
    expect(content).toEqual({
      room_version: rules.version,
      "m.federate": false,
      ...(Number(rules.version) <= 10 ? { creator: ALICE } : {}),
    });
  });

  it("makes trusted invited users creators from version 12 on, beside those that were asked for", () => {
    const room = aNewRoom({
      preset: "trusted_private_chat",
      invite: [BOB],
      creationContent: { additional_creators: ["@carol:example.org", BOB] },
    });
    expect(createContentOf(room, ALICE, rulesFor("12"))["additional_creators"]).toEqual(["@carol:example.org", BOB]);
  });

  it("refuses additional creators that are no users", () => {
    const room = aNewRoom({ creationContent: { additional_creators: ["bob"] } });
    expect(() => createContentOf(room, ALICE, rulesFor("12"))).toThrow("additional_creators");
  });
});

describe("initialRoomEvents", () => {
  const typesOf = (room: NewRoom): string[] =>
    initialRoomEvents(room, ALICE, rulesFor("11"), undefined).map(({ type }) => type);

  it("sets the preset after the power levels, and name and topic last", () => {
    expect(typesOf(aNewRoom({ name: "Tea", topic: "Leaves" }))).toEqual([
      "m.room.power_levels",
      "m.room.join_rules",
      "m.room.history_visibility",
      "m.room.guest_access",
      "m.room.name",
      "m.room.topic",
    ]);
  });

  it("lets initial_state take the place of a preset's event, but not one with another state key", () => {
    const given = (stateKey: string) =>
      typesOf(aNewRoom({ initialState: [{ type: "m.room.join_rules", stateKey, content: {} }] }));
    expect(given("").filter((type) => type === "m.room.join_rules")).toHaveLength(1);
    expect(given("other").filter((type) => type === "m.room.join_rules")).toHaveLength(2);
  });

  it("lets override replace whole keys of the power levels", () => {
    const override = { events: { "m.room.name": 7 }, ban: 99 };
    const [levels] = initialRoomEvents(aNewRoom({ powerLevelOverride: override }), ALICE, rulesFor("11"), undefined);
    expect(levels?.content).toMatchObject({ events: { "m.room.name": 7 }, ban: 99, kick: 50, users: { [ALICE]: 100 } });
    expect(levels?.content["events"]).toEqual({ "m.room.name": 7 });
  });

  it("asks more for an invitation into a public room", () => {
    const inviteLevel = (preset: NewRoom["preset"]) =>
      initialRoomEvents(aNewRoom({ preset }), ALICE, rulesFor("11"), undefined)[0]?.content["invite"];
    expect([inviteLevel("public_chat"), inviteLevel("private_chat")]).toEqual([50, 0]);
  });
});
