import { describe, expect, it } from "vitest";
import type { Event } from "../../../src/matrix/event.ts";
import { LosslessNumber } from "../../../src/matrix/json.ts";
import { toClientEvent } from "../../../src/rooms/read/client-event.ts";
import { ALL_RULES, aSignedPdu, rulesFor } from "../../support/a-pdu.ts";

const NOW = 1_700_000_005_000;

function anEvent(changes: Record<string, unknown> = {}): Event {
  const pdu = aSignedPdu(rulesFor("11"), changes);
  return { eventId: "$event", roomId: "!room:example.org", pdu, rejected: false };
}

describe("toClientEvent", () => {
  const framing = { rules: rulesFor("11"), now: NOW, withRoomId: true };

  it("leaves out what only servers need, and says how old the event is", () => {
    expect(toClientEvent(anEvent({ unsigned: { age: 7, "org.example": 1 } }), framing)).toEqual({
      type: "m.room.message",
      sender: "@alice:example.org",
      event_id: "$event",
      room_id: "!room:example.org",
      origin_server_ts: 1_700_000_000_000,
      content: { msgtype: "m.text", body: "Hello" },
      unsigned: { age: 5000 },
    });
  });

  it("keeps an empty state key, and leaves out the room where it is known", () => {
    const event = toClientEvent(anEvent({ state_key: "" }), { ...framing, withRoomId: false });
    expect(event.state_key).toBe("");
    expect(event).not.toHaveProperty("room_id");
  });

  it("copes with a time that no number holds", () => {
    const event = anEvent({ origin_server_ts: 1 });
    const odd = { ...event, pdu: { ...event.pdu, origin_server_ts: new LosslessNumber("1e400") } };
    expect(toClientEvent(odd, framing).unsigned).toEqual({ age: 0 });
  });

  it.each(ALL_RULES)("names a redacted event at both places, from where version $version has it", (rules) => {
    const inContent = rules.redaction.redactsInContent;
    const named = inContent ? { content: { redacts: "$gone" } } : { content: {}, redacts: "$gone" };
    const event = toClientEvent(anEvent({ type: "m.room.redaction", ...named }), { ...framing, rules });
    expect(event).toMatchObject({ redacts: "$gone", content: { redacts: "$gone" } });
    // At the other place it means nothing.
    const misplaced = inContent ? { content: {}, redacts: "$gone" } : { content: { redacts: "$gone" } };
    const other = toClientEvent(anEvent({ type: "m.room.redaction", ...misplaced }), { ...framing, rules });
    expect(other).not.toHaveProperty("redacts");
  });

  it("redacts, and says why", () => {
    const redactedBecause = anEvent({ type: "m.room.redaction", content: { reason: "Spam", redacts: "$event" } });
    const event = toClientEvent(anEvent(), { ...framing, redactedBecause });
    expect(event.content).toEqual({});
    expect(event.unsigned?.["redacted_because"]).toMatchObject({ content: { reason: "Spam" }, redacts: "$event" });
  });
});
