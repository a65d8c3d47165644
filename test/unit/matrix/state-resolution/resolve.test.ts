import { describe, expect, it } from "vitest";

import type { Event } from "../../../../src/matrix/event.ts";
import type { EventId } from "../../../../src/matrix/identifiers.ts";
import { resolveState } from "../../../../src/matrix/state-resolution/resolve.ts";
import { emptyState, stateGet, stateKeyOf, stateApply } from "../../../../src/matrix/state.ts";
import { rulesFor } from "../../../support/a-pdu.ts";
import { ALICE, aRoom, BOB, CHARLIE, DORA, member, openRoom, topic } from "../../../support/builders.ts";

describe("resolveState", () => {
  it("answers no state at all with the empty state", () => {
    expect(resolveState({ rules: rulesFor("11"), stateSets: [], event: () => undefined })).toBe(emptyState);
  });

  it("survives an auth chain of 200,000 events", { timeout: 60_000 }, () => {
    const room = aRoom("12");
    const start = openRoom(room);
    const template = room.add(start, member(CHARLIE, "join"));
    const usual = template.pdu.auth_events;
    const events = new Map<EventId, Event>(room.events);
    let last = template;
    for (let index = 0; index < 200_000; index += 1) {
      const pdu = { ...template.pdu, auth_events: [...usual.slice(0, -1), last.eventId] };
      last = { ...template, eventId: `$deep${index}`, pdu };
      events.set(last.eventId, last);
    }
    const deep = stateApply(start.state, [[stateKeyOf("m.room.member", CHARLIE), last.eventId]]);
    const state = resolveState({ rules: room.rules, stateSets: [start.state, deep], event: (id) => events.get(id) });
    expect(stateGet(state, "m.room.member", CHARLIE)).toBeDefined();
  });

  it("treats an event that can't be had as if nothing named it", () => {
    const room = aRoom("11");
    const start = openRoom(room);
    const late = room.send(start, topic(ALICE, "Late"));
    const lost = stateApply(start.state, [[stateKeyOf("m.room.topic", ""), "$lost"]]);
    const stateSets = [late.state, lost];
    expect(stateGet(resolveState({ rules: room.rules, stateSets, event: room.event }), "m.room.topic", "")).toBe(
      late.tip.eventId,
    );
  });

  it("asks for none of thousands of members whose state is not in question", () => {
    const room = aRoom("11");
    const crowd = Array.from({ length: 500 }, (_, index) => member(`@m${index}:five.example`, "join"));
    const start = room.send(openRoom(room), ...crowd);
    const one = room.send(start, member(DORA, "join"), topic(ALICE, "Hello"));
    const other = room.send(start, member(BOB, "leave"), { ...topic(ALICE, "Bye"), ts: 1 });
    const asked = new Set<EventId>();
    resolveState({
      rules: room.rules,
      stateSets: [one.state, other.state],
      event: (id) => {
        asked.add(id);
        return room.event(id);
      },
    });
    expect(asked.size).toBeLessThan(15);
  });

  it("answers with a state that shares its base with those it was given", () => {
    const room = aRoom("11");
    const start = openRoom(room);
    const base = stateApply(start.state, []);
    const one = room.send({ ...start, state: base }, topic(ALICE, "1"));
    const other = room.send({ ...start, state: base }, member(DORA, "join"));
    const state = resolveState({ rules: room.rules, stateSets: [one.state, other.state], event: room.event });
    expect(state.base).toBe(base.base);
  });
});
