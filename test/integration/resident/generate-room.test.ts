import { describe, expect, it } from "vitest";
import { checkAuthEventsSelection } from "../../../src/matrix/authorization/auth-events-selection.ts";
import { authEventIds, isStateEvent, prevEventIds } from "../../../src/matrix/event.ts";
import type { Event } from "../../../src/matrix/event.ts";
import { parsePdu } from "../../../src/matrix/event-format.ts";
import { contentHashMatches } from "../../../src/matrix/hashes.ts";
import { parseJson } from "../../../src/matrix/json.ts";
import { ROOM_VERSIONS, rulesOf } from "../../../src/matrix/room-versions.ts";
import type { RoomVersion } from "../../../src/matrix/room-versions.ts";
import { verifyEventSignatures } from "../../../src/matrix/signatures.ts";
import { verdictOn } from "../../resident/compose-event.ts";
import { generateRoom } from "../../resident/generate-room.ts";
import { currentState, eventOf, joinedByServer, stateBefore, stateEventOf } from "../../resident/hosted-room.ts";
import type { HostedRoom } from "../../resident/hosted-room.ts";
import { identityOf, verifyKeyOf } from "../../resident/identities.ts";
import { DEFAULT_ROOM } from "../../resident/room-parameters.ts";

function roomOf(version: RoomVersion): HostedRoom {
  return generateRoom({ ...DEFAULT_ROOM, version, members: 30, forks: 4 });
}

/** What is wrong with an event, by the rules that any server checks. */
function fault(room: HostedRoom, event: Event, text: string): string | undefined {
  const parsed = parsePdu(parseJson(text), room.rules);
  if (!parsed.ok) return parsed.reason;
  if (parsed.event.eventId !== event.eventId) return "another event id";
  if (!contentHashMatches(parsed.event.pdu, room.rules)) return "content hash";
  const signatures = verifyEventSignatures(parsed.event.pdu, room.rules, event.eventId, (server) =>
    verifyKeyOf(identityOf(DEFAULT_ROOM.seed, server)),
  );
  if (!signatures.valid) return `signature: ${signatures.reason}`;
  const auth = authEventIds(event.pdu).map((id) => eventOf(room, id));
  const selection = checkAuthEventsSelection(event, auth, room.rules);
  if (!selection.allowed) return selection.reason;
  const verdict = verdictOn(room, event, stateBefore(room, event.eventId));
  return verdict.allowed === !event.rejected ? undefined : `auth rules: ${verdict.rule}`;
}

describe.each(ROOM_VERSIONS)("generateRoom, version %s", (version) => {
  const room = roomOf(version);

  it("makes only events that another server accepts, or rejects where the room says so", () => {
    const faults = [...room.events.values()].flatMap(({ event, text }) => fault(room, event, text) ?? []);
    expect(faults).toEqual([]);
    expect([...room.events.values()].filter(({ event }) => event.rejected)).toHaveLength(DEFAULT_ROOM.rejected);
  });

  it("has the members, bans and forks that were asked for", () => {
    const state = currentState(room);
    const joined = [...joinedByServer(room, state).values()].flat();
    expect(joined).toHaveLength(30);
    const events = [...room.events.values()].map(({ event }) => event);
    expect(events.filter(({ pdu }) => pdu.content["membership"] === "ban")).toHaveLength(DEFAULT_ROOM.bans);
    expect(events.filter(({ pdu }) => prevEventIds(pdu).length > 1)).toHaveLength(4);
    expect(stateEventOf(room, state, ["m.room.create", ""])?.roomId).toBe(room.roomId);
  });

  it("makes the same room again from the same parameters", () => {
    expect([...roomOf(version).events.keys()]).toEqual([...room.events.keys()]);
  });
});

describe("generateRoom", () => {
  it("refuses joins by another rule than public at the end", () => {
    const room = generateRoom({ ...DEFAULT_ROOM, version: "10", joinRule: "knock_restricted" });
    const rule = stateEventOf(room, currentState(room), ["m.room.join_rules", ""]);
    expect(rule?.pdu.content["join_rule"]).toBe("knock_restricted");
  });

  it("makes some thousand events a second", () => {
    const from = performance.now();
    const room = generateRoom({ ...DEFAULT_ROOM, members: 5000, servers: 50 });
    const seconds = (performance.now() - from) / 1000;
    const states = [...room.events.values()].filter(({ event }) => isStateEvent(event.pdu)).length;
    process.stdout.write(`${room.events.size} events (${states} of state) in ${seconds.toFixed(1)} s\n`);
    expect(room.events.size).toBeGreaterThan(5000);
    expect(rulesOf("11")).toBe(room.rules);
  });
});
