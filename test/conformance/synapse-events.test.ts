import { describe, expect, it } from "vitest";
import { checkAuthEventsSelection } from "../../src/matrix/authorization/auth-events-selection.ts";
import { authorize } from "../../src/matrix/authorization/authorize.ts";
import type { AuthState } from "../../src/matrix/authorization/verdict.ts";
import { authEventIds, isStateEvent } from "../../src/matrix/event.ts";
import type { Event } from "../../src/matrix/event.ts";
import { parsePdu } from "../../src/matrix/event-format.ts";
import { contentHashMatches, eventIdOf } from "../../src/matrix/hashes.ts";
import type { EventId } from "../../src/matrix/identifiers.ts";
import { redact } from "../../src/matrix/redaction.ts";
import { ROOM_VERSIONS } from "../../src/matrix/room-versions.ts";
import { requiredSigners, verifyEventSignatures } from "../../src/matrix/signatures.ts";
import { rulesFor } from "../support/a-pdu.ts";
import { readSynapseRoom } from "./synapse-events/read-fixture.ts";

/** Every event with the state before it. */
function* withStateBefore(
  events: readonly Event[],
): Generator<readonly [event: Event, state: ReadonlyMap<string, Event>]> {
  const state = new Map<string, Event>();
  for (const event of events) {
    yield [event, state];
    if (isStateEvent(event.pdu)) state.set(JSON.stringify([event.pdu.type, event.pdu.state_key]), event);
  }
}

function asAuthState(state: ReadonlyMap<string, Event>): AuthState {
  return (type, stateKey) => state.get(JSON.stringify([type, stateKey]));
}

describe.each(ROOM_VERSIONS)("a room of version %s that Synapse made", (version) => {
  const rules = rulesFor(version);
  const room = readSynapseRoom(version);
  const events = room.events.map(({ pdu }) => {
    const verdict = parsePdu(pdu, rules);
    if (!verdict.ok) throw new Error(verdict.reason);
    return verdict.event;
  });

  it("has events enough of every kind", () => {
    const kinds = new Set(events.map(({ pdu }) => (isStateEvent(pdu) ? "state" : pdu.type)));
    expect([...kinds].toSorted()).toEqual(["m.room.message", "m.room.redaction", "org.example.numbers", "state"]);
    const memberships = new Set(events.flatMap(({ pdu }) => pdu.content["membership"] ?? []));
    const knock = rules.knocking ? ["knock"] : [];
    expect([...memberships].toSorted()).toEqual(["ban", "invite", "join", ...knock, "leave"]);
    expect(events.length).toBeGreaterThan(20);
  });

  it("has the event ids that Synapse gave them", () => {
    expect(events.map(({ eventId }) => eventId)).toEqual(room.events.map(({ eventId }) => eventId));
  });

  it("names its room by its create event where the version does", () => {
    const named = rules.roomIdIsCreateEventHash ? [`!${events[0]?.eventId.slice(1)}`] : [events[0]?.pdu.room_id];
    expect([...new Set(events.map(({ roomId }) => roomId))]).toEqual(named);
  });

  it("has content hashes that match, and that no longer do once content is changed", () => {
    for (const { pdu } of events) {
      expect(contentHashMatches(pdu, rules)).toBe(true);
      expect(contentHashMatches({ ...pdu, content: { ...pdu.content, changed: 1 } }, rules)).toBe(false);
    }
  });

  it("has signatures that hold, redacted or not, and that no longer do once a signed key is changed", () => {
    for (const { eventId, pdu } of events) {
      expect(verifyEventSignatures(pdu, rules, eventId, room.keys)).toEqual({ valid: true });
      expect(verifyEventSignatures(redact(pdu, rules), rules, eventId, room.keys)).toEqual({ valid: true });
      const changed = { ...pdu, origin_server_ts: 1 };
      expect(verifyEventSignatures(changed, rules, eventId, room.keys)).toMatchObject({ valid: false });
    }
  });

  it("keeps its event ids when redacted", () => {
    for (const { eventId, pdu } of events) expect(eventIdOf(redact(pdu, rules), rules)).toBe(eventId);
  });

  it("has a join that both servers had to sign, where the version knows restricted joins", () => {
    const signers = events.map(({ eventId, pdu }) => requiredSigners(pdu, rules, eventId).length);
    expect(Math.max(...signers)).toBe(rules.restrictedJoins ? 2 : 1);
  });

  it("has auth_events that are selected well and that allow each event", () => {
    const byId = new Map<EventId, Event>(events.map((event) => [event.eventId, event]));
    for (const event of events) {
      const authEvents = authEventIds(event.pdu).map((id) => byId.get(id));
      expect(checkAuthEventsSelection(event, authEvents, rules)).toMatchObject({ allowed: true });
    }
  });

  it("is allowed by the auth rules, each event against the state before it", () => {
    for (const [event, state] of withStateBefore(events)) {
      expect(authorize(event, asAuthState(state), rules)).toMatchObject({ allowed: true });
    }
  });

  it("is refused by the auth rules where the sender is not in the room", () => {
    for (const [event, state] of withStateBefore(events)) {
      const { sender, type, content } = event.pdu;
      const comesIn = type === "m.room.member" && ["join", "knock"].includes(content["membership"] as string);
      // v1–v5: aliases ask for no membership.
      const free = type === "m.room.create" || (type === "m.room.aliases" && rules.aliasesAreSpecial);
      if (comesIn || free) continue;
      const senderKey = JSON.stringify(["m.room.member", sender]);
      const withoutSender = asAuthState(new Map([...state].filter(([key]) => key !== senderKey)));
      expect(authorize(event, withoutSender, rules)).toMatchObject({ allowed: false });
    }
  });
});
