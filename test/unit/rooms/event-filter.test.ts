import { describe, expect, it } from "vitest";
import { passesFilter, passesRoomFilter } from "../../../src/rooms/read/event-filter.ts";
import type { EventFilter } from "../../../src/rooms/read/event-filter.ts";
import { aPdu, rulesFor } from "../../support/a-pdu.ts";

const message = aPdu(rulesFor("11"), { type: "m.room.message", sender: "@alice:example.org" });

describe("passesFilter", () => {
  const cases: readonly (readonly [EventFilter, boolean])[] = [
    [{}, true],
    [{ types: [] }, false],
    [{ types: ["m.room.message"] }, true],
    [{ types: ["m.room.*"] }, true],
    [{ types: ["*message"] }, true],
    [{ types: ["m.*.message"] }, true],
    [{ types: ["m.*room*mess*e"] }, true],
    [{ types: ["m.*mess*room*"] }, false],
    [{ types: ["m.room.mess"] }, false],
    [{ types: ["*"] }, true],
    // The two halves must not overlap.
    [{ types: ["m.room.message*message"] }, false],
    [{ not_types: ["m.room.message"] }, false],
    [{ types: ["m.room.message"], not_types: ["m.*"] }, false],
    [{ senders: ["@alice:example.org"] }, true],
    [{ senders: ["@bob:example.org"] }, false],
    [{ not_senders: ["@alice:example.org"] }, false],
    [{ contains_url: true }, false],
    [{ contains_url: false }, true],
  ];
  it.each(cases)("%j: %s", (filter, passes) => {
    expect(passesFilter(message, filter)).toBe(passes);
  });

  it("finds a url in the content only where it is a string", () => {
    const image = { ...message, content: { url: "mxc://example.org/1" } };
    expect(passesFilter(image, { contains_url: true })).toBe(true);
    expect(passesFilter({ ...message, content: { url: 1 } }, { contains_url: true })).toBe(false);
  });
});

describe("passesRoomFilter", () => {
  it("lets not_rooms win over rooms", () => {
    expect(passesRoomFilter("!a", {})).toBe(true);
    expect(passesRoomFilter("!a", { rooms: ["!a"] })).toBe(true);
    expect(passesRoomFilter("!b", { rooms: ["!a"] })).toBe(false);
    expect(passesRoomFilter("!a", { rooms: ["!a"], not_rooms: ["!a"] })).toBe(false);
  });
});
