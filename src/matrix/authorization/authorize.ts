import { createEventIdOf } from "../event.ts";
import type { Event } from "../event.ts";
import { serverNameOf } from "../identifiers.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { property } from "./content.ts";
import { checkCreate } from "./create.ts";
import { membershipIn } from "./join-rules.ts";
import { powerLevelOf, requiredLevel } from "./levels.ts";
import { checkMembership } from "./membership.ts";
import { checkPowerLevels } from "./power-levels.ts";
import { checkRedaction } from "./redaction.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthState, AuthVerdict } from "./verdict.ts";

/**
 * Checks an event against a state by the authorization rules of its room version: all of them but the one on the
 * selection of its `auth_events` (`checkAuthEventsSelection`) and the signatures.
 *
 * The numbers of the rules differ between versions (v1–v2 have `m.room.aliases` as 4 and `m.room.redaction` as 11;
 * v3–v5 lost the latter, v6–v11 both; v12 has a new rule 2): those in the comments are version 12's.
 *
 * @param state the state before the event; `state("m.room.create", "")` gives the create event in every version
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function authorize(event: Event, state: AuthState, rules: RoomVersionRules): AuthVerdict {
  const { type, sender } = event.pdu;

  // v1 on, rule 1: m.room.create.
  if (type === "m.room.create") {
    return checkCreate(event, rules);
  }

  // v1–v11, rule 2.4: if there is no m.room.create, reject.
  const create = state("m.room.create", "");
  if (create === undefined) {
    return reject("create.missing", "the room has no create event");
  }
  const closed = checkRoom(event, create, rules);
  if (closed !== undefined) {
    return closed;
  }

  // v1–v5, rule 4: m.room.aliases is allowed to those whose domain is the state_key, whether they joined or not.
  if (type === "m.room.aliases" && rules.aliasesAreSpecial) {
    const domain = serverNameOf(sender);
    return event.pdu.state_key !== undefined && event.pdu.state_key === domain
      ? allow("aliases")
      : reject("aliases.other-domain", `aliases belong to the domain ${domain ?? "(none)"}`);
  }

  // v1 on, rule 5: m.room.member.
  if (type === "m.room.member") {
    return checkMembership(event, create, state, rules);
  }

  // v1 on, rule 6: if the sender's current membership state is not join, reject.
  if (membershipIn(state, sender) !== "join") {
    return reject("sender.not-joined", `${sender} is not in the room`);
  }
  return checkByPower(event, create, state, rules);
}

function checkRoom(event: Event, create: Event, rules: RoomVersionRules): AuthVerdict | undefined {
  // v12 on, rule 2: if the event's room_id is not that of an accepted create event, reject.
  if (rules.roomIdIsCreateEventHash && (create.rejected || create.eventId !== createEventIdOf(rules, event.roomId))) {
    return reject("create.other-room", `${create.eventId} did not create the room ${event.roomId}`);
  }

  // v1 on, rule 4: a room with m.federate false is closed to senders of other domains than its creator's.
  const domain = serverNameOf(event.pdu.sender);
  if (property(create.pdu.content, "m.federate") === false && domain !== serverNameOf(create.pdu.sender)) {
    return reject("create.not-federated", `the room is closed to servers such as ${domain ?? "(none)"}`);
  }
  return undefined;
}

/** Rules 7 to 11: what a member of the room may send. */
function checkByPower(event: Event, create: Event, state: AuthState, rules: RoomVersionRules): AuthVerdict {
  const { type, sender, state_key: stateKey } = event.pdu;
  const senderLevel = powerLevelOf(sender, state, rules);

  // v1 on, rule 7: m.room.third_party_invite is allowed if and only if the sender may invite.
  if (type === "m.room.third_party_invite") {
    return senderLevel >= requiredLevel("invite", state, rules)
      ? allow("third_party_invite")
      : reject("third_party_invite.power", `${sender} may not invite`);
  }

  // v1 on, rule 8: if the event type's required power level is greater than the sender's power level, reject.
  const required = requiredLevel(event.pdu, state, rules);
  if (!(senderLevel >= required)) {
    return reject("event.power", `${type} needs the power level ${required}, ${sender} has ${senderLevel}`);
  }

  // v1 on, rule 9: if the event has a state_key that starts with an @ and does not match the sender, reject.
  if (stateKey?.startsWith("@") === true && stateKey !== sender) {
    return reject("event.state-key", `only ${stateKey} may set this state`);
  }

  // v1 on, rule 10: m.room.power_levels.
  if (type === "m.room.power_levels") {
    return checkPowerLevels(event, create, state, rules);
  }

  // v1–v2, rule 11: m.room.redaction.
  if (type === "m.room.redaction" && rules.redactionAuthRule) {
    return checkRedaction(event, state, rules);
  }

  // v1 on, the last rule: otherwise, allow.
  return allow("event");
}
