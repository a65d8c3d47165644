import { describe, expect, it } from "vitest";

import { authorize } from "../../../../src/matrix/authorization/authorize.ts";
import { creatorsOf } from "../../../../src/matrix/authorization/create.ts";
import type { Event } from "../../../../src/matrix/event.ts";
import type { JsonObject } from "../../../../src/matrix/json.ts";
import type { RoomVersion } from "../../../../src/matrix/room-versions.ts";
import { ROOM_VERSIONS } from "../../../../src/matrix/room-versions.ts";
import { ALICE, aRoom, BOB, CHARLIE } from "../../../support/builders.ts";

function verdict(version: RoomVersion, change: (event: Event) => Event): string {
  const { create, rules } = aRoom(version);
  const { allowed, rule } = authorize(change(create), () => undefined, rules);
  return allowed ? rule : `-${rule}`;
}

const withPdu =
  (fields: JsonObject) =>
  (event: Event): Event => ({ ...event, pdu: { ...event.pdu, ...fields } });
const withContent =
  (fields: JsonObject) =>
  (event: Event): Event => ({ ...event, pdu: { ...event.pdu, content: { ...event.pdu.content, ...fields } } });

describe("checkCreate", () => {
  it.each(ROOM_VERSIONS)("allows an ordinary create event of version %s", (version) => {
    expect(verdict(version, (event) => event)).toBe("create");
  });

  it("refuses previous events", () => {
    expect(verdict("3", withPdu({ prev_events: ["$x"] }))).toBe("-create.prev-events");
  });

  it("refuses a room id of another domain, and from version 12 on any room id", () => {
    expect(verdict("11", (event) => ({ ...event, roomId: "!room:two.example" }))).toBe("-create.room-id");
    expect(verdict("12", withPdu({ room_id: "!room" }))).toBe("-create.room-id");
  });

  it("refuses a room version that nobody knows, and allows none", () => {
    expect(verdict("6", withContent({ room_version: "99" }))).toBe("-create.room-version");
    expect(verdict("6", withContent({ room_version: 6 }))).toBe("-create.room-version");
    expect(verdict("1", withContent({ room_version: undefined }))).toBe("create");
  });

  it("asks for a creator up to version 10", () => {
    expect(verdict("10", withContent({ creator: undefined }))).toBe("-create.creator");
    expect(verdict("11", withContent({ creator: undefined }))).toBe("create");
  });

  it.each([[[BOB, CHARLIE], "create"] as const, [[], "create"] as const])(
    "allows the additional creators %j in version 12",
    (list, expected) => {
      expect(verdict("12", withContent({ additional_creators: list }))).toBe(expected);
    },
  );

  it.each([[["bob"]], [["@bob"]], [[`@${"b".repeat(255)}:x`]], [[5]], [BOB], [{}], [null]])(
    "refuses the additional creators %j in version 12, which version 11 doesn't read",
    (list) => {
      expect(verdict("12", withContent({ additional_creators: list }))).toBe("-create.additional-creators");
      expect(verdict("11", withContent({ additional_creators: list }))).toBe("create");
    },
  );
});

describe("creatorsOf", () => {
  const creators = (version: RoomVersion, content: JsonObject) => {
    const { create, rules } = aRoom(version);
    return creatorsOf(withContent(content)(create), rules);
  };

  it("is content.creator up to version 10, the sender after that, and the additional ones from version 12 on", () => {
    const content = { creator: BOB, additional_creators: [CHARLIE] };
    expect(creators("10", content)).toEqual([BOB]);
    expect(creators("11", content)).toEqual([ALICE]);
    expect(creators("12", content)).toEqual([ALICE, CHARLIE]);
    expect(creators("12", {})).toEqual([ALICE]);
  });

  it("is nobody where version 10's creator is no user id", () => {
    expect(creators("10", { creator: 5 })).toEqual([]);
  });
});
