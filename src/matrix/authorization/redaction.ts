import { isEventId, serverNameOf } from "../identifiers.ts";
import type { Event } from "../event.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { powerLevelOf, requiredLevel } from "./levels.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthState, AuthVerdict } from "./verdict.ts";

/**
 * v1–v2, rule 11: the rules for `m.room.redaction`.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v1/#authorization-rules
 */
export function checkRedaction(event: Event, state: AuthState, rules: RoomVersionRules): AuthVerdict {
  const { sender, redacts } = event.pdu;
  // v1–v2, rule 11.1: if the sender's power level is at least the redact level, allow.
  if (powerLevelOf(sender, state, rules) >= requiredLevel("redact", state, rules)) {
    return allow("redaction.power");
  }
  // v1–v2, rule 11.2: if the domains of the two event ids are the same, allow.
  const domain = serverNameOf(event.eventId);
  if (domain !== undefined && isEventId(redacts) && serverNameOf(redacts) === domain) {
    return allow("redaction.same-domain");
  }
  // v1–v2, rule 11.3: otherwise, reject.
  return reject("redaction.power", `${sender} may not redact another server's event`);
}
