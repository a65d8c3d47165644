import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkAuthEventsSelection } from "../../src/matrix/authorization/auth-events-selection.ts";
import { authorize } from "../../src/matrix/authorization/authorize.ts";
import type { AuthState } from "../../src/matrix/authorization/verdict.ts";
import { authEventIds, isStateEvent } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { parseJson, stringifyJson } from "../../src/matrix/json.ts";
import type { JsonObject, JsonValue } from "../../src/matrix/json.ts";
import { redact } from "../../src/matrix/redaction.ts";
import { resolveState } from "../../src/matrix/state-resolution/resolve.ts";
import { stateEntries, stateFromEntries, stateKeyOf } from "../../src/matrix/state.ts";
import type { StateKey } from "../../src/matrix/state.ts";
import { laxJson } from "../property/arbitrary-json.ts";
import { anyRules, changedByte, mutant, useUp } from "../property/arbitrary-pdus.ts";
import {
  byteMutations,
  mutated,
  mutatedBytes,
  mutatedContent,
  mutation,
  realRoom,
  type Mutation,
  type RealRoom,
} from "../property/arbitrary-real-events.ts";
import { runs } from "../support/fuzz.ts";

/** One of the room's events, counted round. */
function eventAt(room: RealRoom, at: number): Event {
  const event = room.events[at % room.events.length];
  if (event === undefined) throw new Error("a room without events");
  return event;
}

describe("parsePdu", () => {
  it("gives nothing but verdicts on mutated events", () => {
    const property = fc.property(mutant, ({ rules, value }) => useUp(value, rules));
    fc.assert(property, runs(15_000));
  });

  it("gives nothing but verdicts on mutated bytes", () => {
    const property = fc.property(changedByte, (mutated) => {
      if (mutated !== undefined) useUp(mutated.value, mutated.rules);
    });
    fc.assert(property, runs(10_000));
  });

  it("gives nothing but verdicts on arbitrary JSON", () => {
    fc.assert(fc.property(laxJson, anyRules, useUp), runs(10_000));
  });

  it("gives nothing but verdicts on mutated events of real servers, read by whatever room version", () => {
    const property = fc.property(realRoom, fc.nat(), mutation, anyRules, (room, at, by, others) => {
      const value = mutated(eventAt(room, at).pdu, by);
      useUp(value, room.rules);
      useUp(value, others);
    });
    fc.assert(property, runs(6_000));
  });

  it("gives nothing but verdicts on mutated texts of real servers' events", () => {
    const property = fc.property(realRoom, fc.nat(), byteMutations, (room, at, by) => {
      const text = Buffer.from(mutatedBytes(Buffer.from(stringifyJson(eventAt(room, at).pdu)), by)).toString("utf8");
      const value = parsed(text);
      if (value !== undefined) useUp(value, room.rules);
    });
    fc.assert(property, runs(6_000));
  });
});

/** Undefined where the text is refused by an error of ours. */
function parsed(text: string): JsonValue | undefined {
  try {
    return parseJson(text);
  } catch (error) {
    expect((error as Error).name).toBe("JsonSyntaxError");
    return undefined;
  }
}

/** An event whose content is mutated, read anew; undefined where that has broken its form. */
function reread(event: Event, by: Mutation, rules: RealRoom["rules"]): Event | undefined {
  const verdict = parsePdu(mutatedContent(event.pdu, by), rules);
  return verdict.ok ? verdict.event : undefined;
}

/** The state before the n-th event, some of its events with other contents. */
function stateBefore(
  room: RealRoom,
  count: number,
  changes: ReadonlyMap<number, Mutation>,
): ReadonlyMap<StateKey, Event> {
  const state = new Map<StateKey, Event>();
  for (const [at, event] of room.events.slice(0, count).entries()) {
    if (!isStateEvent(event.pdu)) continue;
    const change = changes.get(at);
    const changed = change === undefined ? event : (reread(event, change, room.rules) ?? event);
    state.set(stateKeyOf(event.pdu.type, event.pdu.state_key), changed);
  }
  return state;
}

const changesOfState = fc.dictionary(fc.nat(60).map(String), mutation, { minKeys: 1, maxKeys: 4 });

function byPlace(changes: Readonly<Record<string, Mutation>>): ReadonlyMap<number, Mutation> {
  return new Map(Object.entries(changes).map(([at, by]) => [Number(at), by]));
}

describe("authorize", () => {
  it("gives nothing but verdicts on mutated events before mutated states of real rooms", () => {
    const property = fc.property(realRoom, fc.nat(), mutation, changesOfState, (room, at, by, changes) => {
      const place = at % room.events.length;
      const state = stateBefore(room, place, byPlace(changes));
      const lookUp: AuthState = (type, stateKey) => state.get(stateKeyOf(type, stateKey));
      const event = reread(eventAt(room, place), by, room.rules) ?? eventAt(room, place);
      expect(typeof authorize(event, lookUp, room.rules).allowed).toBe("boolean");
      const known = new Map([...state.values()].map((one) => [one.eventId, one]));
      const cited = authEventIds(event.pdu).map((id) => known.get(id));
      expect(typeof checkAuthEventsSelection(event, cited, room.rules).allowed).toBe("boolean");
      expect(parsePdu(redact(event.pdu, room.rules), room.rules).ok).toBe(true);
    });
    fc.assert(property, runs(8_000));
  });
});

describe("resolveState", () => {
  it("gives a state of events that it was given, of whatever mutated states, in either order", () => {
    const property = fc.property(
      realRoom,
      fc.tuple(fc.nat(), changesOfState),
      fc.tuple(fc.nat(), changesOfState),
      (room, ...sides) => {
        const states = sides.map(([count, changes]) =>
          stateBefore(room, 1 + (count % room.events.length), byPlace(changes)),
        );
        const events = new Map<EventId, Event>(room.events.map((event) => [event.eventId, event]));
        for (const state of states) for (const event of state.values()) events.set(event.eventId, event);
        const stateSets = states.map((state) =>
          stateFromEntries([...state].map(([key, { eventId }]) => [key, eventId])),
        );
        const event = (id: EventId): Event | undefined => events.get(id);
        const resolved = new Map(stateEntries(resolveState({ rules: room.rules, stateSets, event })));
        expect([...resolved.values()].every((id) => events.has(id))).toBe(true);
        const other = resolveState({ rules: room.rules, stateSets: stateSets.toReversed(), event });
        expect(new Map(stateEntries(other))).toEqual(resolved);
      },
    );
    fc.assert(property, runs(3_000));
  });

  it("goes on where events cite what nobody knows, or each other in a ring", () => {
    const property = fc.property(
      realRoom,
      fc.array(fc.nat(), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      (room, lost, ring) => {
        const all = room.events.filter(({ pdu }) => isStateEvent(pdu));
        const gone = new Set(lost.map((at) => all[at % all.length]?.eventId));
        const ringed = all[ring % all.length];
        const last = all.at(-1);
        const events = new Map(all.filter(({ eventId }) => !gone.has(eventId)).map((one) => [one.eventId, one]));
        if (ringed !== undefined && last !== undefined) {
          const pdu = { ...ringed.pdu, auth_events: citing(room, last.eventId) } as JsonObject as typeof ringed.pdu;
          events.set(ringed.eventId, { ...ringed, pdu });
        }
        const half = Math.ceil(all.length / 2);
        const stateSets = [all.slice(0, half), all].map((side) =>
          stateFromEntries(side.map(({ eventId, pdu }) => [stateKeyOf(pdu.type, pdu.state_key ?? ""), eventId])),
        );
        const resolved = resolveState({ rules: room.rules, stateSets, event: (id) => events.get(id) });
        expect([...stateEntries(resolved)].length).toBeGreaterThan(0);
      },
    );
    fc.assert(property, runs(2_000));
  });
});

function citing({ rules }: RealRoom, eventId: EventId): JsonValue {
  return rules.eventIdFormat === "chosen-by-sender" ? [[eventId, { sha256: "" }]] : [eventId];
}
