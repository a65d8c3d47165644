import fc from "fast-check";
import { describe, expect, it } from "vitest";

import { authorize } from "../../src/matrix/authorization/authorize.ts";
import { authEventIds } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import type { RoomVersion } from "../../src/matrix/room-versions.ts";
import { conflictedEventIds } from "../../src/matrix/state-resolution/split-conflicted.ts";
import { resolveState } from "../../src/matrix/state-resolution/resolve.ts";
import { stateDiff, stateEntries, stateFromEntries, stateGet } from "../../src/matrix/state.ts";
import type { StateMap } from "../../src/matrix/state.ts";
import { arbitraryMixedStates, arbitraryRoom } from "./arbitrary-rooms.ts";
import type { GrownRoom } from "./arbitrary-rooms.ts";
import { comparable, referenceResolution } from "./reference-resolution.ts";
import { runs } from "../support/fuzz.ts";

const resolve = ({ room }: GrownRoom, stateSets: readonly StateMap[]): StateMap =>
  resolveState({ rules: room.rules, stateSets, event: room.event });

/** The same state, put together in another order and on another base. */
const rebuilt = (state: StateMap): StateMap => stateFromEntries([...stateEntries(state)].reverse());

const sinceV2 = ROOM_VERSIONS.filter((version) => version !== "1");

/** Rooms in which some events, which nothing else cites, turn out to be rejected. */
function arbitraryRoomWithRejections(
  version: RoomVersion,
): fc.Arbitrary<{ grown: GrownRoom; events: ReadonlyMap<EventId, Event> }> {
  return fc.tuple(arbitraryRoom(version), fc.array(fc.nat(100), { maxLength: 6 })).map(([grown, picks]) => {
    const events = new Map<EventId, Event>(grown.room.events);
    const candidates = [...conflictedEventIds(grown.states)];
    for (const pick of picks) {
      const id = candidates[pick % Math.max(1, candidates.length)];
      const event = id === undefined ? undefined : events.get(id);
      if (event !== undefined && event.pdu.type !== "m.room.create")
        events.set(event.eventId, { ...event, rejected: true });
    }
    return { grown, events };
  });
}

describe.each(ROOM_VERSIONS)("resolveState in room version %s", (version) => {
  it("gives one answer whatever the order of the states, of their entries and of the room's events", () => {
    fc.assert(
      fc.property(arbitraryMixedStates(version), fc.infiniteStream(fc.nat(1000)), (grown, random) => {
        const expected = comparable(stateEntries(resolve(grown, grown.states)));
        const shuffled = grown.states
          .map((state) => ({ state: rebuilt(state), rank: random.next().value ?? 0 }))
          .sort((one, other) => one.rank - other.rank)
          .map(({ state }) => state);
        expect(comparable(stateEntries(resolve(grown, shuffled)))).toEqual(expected);
        expect(comparable(stateEntries(resolve(grown, [...shuffled, ...grown.states])))).toEqual(expected);
      }),
      runs(40),
    );
  });

  it("keeps what is unconflicted, and leaves equal states as they are", () => {
    fc.assert(
      fc.property(arbitraryRoom(version), (grown) => {
        const resolved = resolve(grown, grown.states);
        const [first, ...others] = grown.states;
        if (first === undefined) return;
        for (const [key, id] of stateEntries(first)) {
          if (others.every((other) => [...stateEntries(other)].some(([k, i]) => k === key && i === id))) {
            expect(comparable(stateEntries(resolved))).toContain(comparable([[key, id]])[0]);
          }
        }
        expect(stateDiff(resolve(grown, [first, rebuilt(first), first]), first).size).toBe(0);
        expect(stateDiff(resolve(grown, [resolved, rebuilt(resolved)]), resolved).size).toBe(0);
      }),
      runs(40),
    );
  });
});

describe.each(sinceV2)("resolveState in room version %s, by the algorithm v2 or v2.1", (version) => {
  it("answers as the specification's words, followed slowly, do", () => {
    fc.assert(
      fc.property(fc.oneof(arbitraryRoom(version), arbitraryMixedStates(version)), (grown) => {
        const expected = referenceResolution(grown.room.rules, grown.states, grown.room.events);
        expect(comparable(stateEntries(resolve(grown, grown.states)))).toEqual(comparable(expected));
      }),
      runs(100),
    );
  });

  it("answers so where events were rejected, too, and then lets none of them in", () => {
    fc.assert(
      fc.property(arbitraryRoomWithRejections(version), ({ grown, events }) => {
        const { rules } = grown.room;
        const resolved = resolveState({ rules, stateSets: grown.states, event: (id) => events.get(id) });
        expect(comparable(stateEntries(resolved))).toEqual(
          comparable(referenceResolution(rules, grown.states, events)),
        );
        expect([...stateEntries(resolved)].filter(([, id]) => events.get(id)?.rejected === true)).toEqual([]);
      }),
      runs(60),
    );
  });

  it("lets in only what the auth rules allow on the event's own auth events", () => {
    fc.assert(
      fc.property(arbitraryRoom(version), (grown) => {
        const { room } = grown;
        const resolved = resolve(grown, grown.states);
        const conflicted = conflictedEventIds(grown.states);
        for (const [, id] of stateEntries(resolved)) {
          const event = room.event(id);
          if (event === undefined || !conflicted.has(id)) continue;
          const cited = authEventIds(event.pdu).map(room.event);
          const byOwnAuth = authorize(
            event,
            (type, key) =>
              type === "m.room.create"
                ? room.create
                : cited.find((one) => one?.pdu.type === type && one.pdu.state_key === key),
            room.rules,
          );
          expect(byOwnAuth.allowed).toBe(true);
        }
        expect(stateGet(resolved, "m.room.create", "")).toBe(room.create.eventId);
      }),
      runs(40),
    );
  });
});
