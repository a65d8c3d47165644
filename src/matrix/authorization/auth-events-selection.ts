import { authEventIds, isStateEvent } from "../event.ts";
import type { Event } from "../event.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { stateKeyOf } from "../state.ts";
import type { StateKey } from "../state.ts";
import { authTypesFor } from "./auth-types.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthVerdict } from "./verdict.ts";

/**
 * Whether an event may cite these auth events at all: rule 2 of room versions 1–11, rule 3 of version 12.
 *
 * It does not say that they allow the event: `authorize` does.
 *
 * @param authEvents what the event's `auth_events` name, in any order; undefined for one that can't be had
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function checkAuthEventsSelection(
  event: Event,
  authEvents: readonly (Event | undefined)[],
  rules: RoomVersionRules,
): AuthVerdict {
  // v1 on, rule 1 comes first and decides: nothing is asked of the auth_events of a create event.
  if (event.pdu.type === "m.room.create") {
    return allow("auth_events.create");
  }
  const expected = new Set(authTypesFor(event.pdu, rules).map(([type, stateKey]) => stateKeyOf(type, stateKey)));
  const seen = new Set<StateKey>();

  // An event id that is named twice is a duplicate of its type and state key too.
  const ids = authEventIds(event.pdu);
  if (new Set(ids).size < ids.length) {
    return reject("auth_events.duplicate", "one event is named twice");
  }

  for (const authEvent of authEvents) {
    const refusal = checkEntry(event, authEvent, expected, seen);
    if (refusal !== undefined) {
      return refusal;
    }
  }

  // v1–v11, rule 2.4: if there is no m.room.create among the entries, reject.
  if (!rules.roomIdIsCreateEventHash && !seen.has(stateKeyOf("m.room.create", ""))) {
    return reject("auth_events.no-create", "the create event is not among the auth events");
  }
  return allow("auth_events");
}

/** @param seen the keys of the entries before this one; this one's is added */
function checkEntry(
  event: Event,
  authEvent: Event | undefined,
  expected: ReadonlySet<StateKey>,
  seen: Set<StateKey>,
): AuthVerdict | undefined {
  if (authEvent === undefined) {
    return reject("auth_events.missing", "an auth event is not known");
  }
  const { eventId, roomId, pdu, rejected } = authEvent;
  // v1 on, last of rule 2 (v12: rule 3.5): if any is of another room, reject.
  if (roomId !== event.roomId) {
    return reject("auth_events.other-room", `${eventId} is of the room ${roomId}`);
  }
  // v1 on, rule 2.2 (v12: rule 3.2): entries that the auth events selection does not name: reject.
  const key = stateKeyOf(pdu.type, pdu.state_key ?? "");
  if (!isStateEvent(pdu) || !expected.has(key)) {
    return reject("auth_events.unexpected", `${eventId} (${pdu.type}) does not belong to the selection`);
  }
  // v1 on, rule 2.1 (v12: rule 3.1): duplicate entries for a type and state_key: reject.
  if (seen.has(key)) {
    return reject("auth_events.duplicate", `${eventId} is a second ${pdu.type}`);
  }
  seen.add(key);
  // v1 on, rule 2.3 (v12: rule 3.3): entries that were themselves rejected: reject.
  return rejected ? reject("auth_events.rejected", `${eventId} was rejected`) : undefined;
}
