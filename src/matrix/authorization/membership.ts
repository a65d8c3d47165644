import type { Event } from "../event.ts";
import { isUserId } from "../identifiers.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { property, stringProperty } from "./content.ts";
import { checkJoin } from "./join.ts";
import { joinRuleIn, membershipIn } from "./join-rules.ts";
import { powerLevelOf, requiredLevel } from "./levels.ts";
import { checkThirdPartyInvite } from "./third-party-invite.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthState, AuthVerdict } from "./verdict.ts";

/** A change of the membership of `target`, with the state it is checked against. */
export interface MembershipChange {
  readonly event: Event;
  /** The user whose membership it is: the `state_key`. */
  readonly target: string;
  readonly create: Event;
  readonly state: AuthState;
  readonly rules: RoomVersionRules;
}

/**
 * The rules for `m.room.member`: rule 5 of room versions 1–5 and 12, rule 4 of versions 6–11. The numbers below are
 * those of version 12.
 *
 * Rule 5.2 (v8 on: an event with `join_authorised_via_users_server` is signed by that user's server) is a matter of
 * signatures, which are checked before the auth rules are asked.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function checkMembership(event: Event, create: Event, state: AuthState, rules: RoomVersionRules): AuthVerdict {
  // v1 on, rule 5.1: if there is no state_key property, or no membership property in content, reject.
  const target = event.pdu.state_key;
  if (target === undefined) {
    return reject("membership.no-state-key", "a membership without a state_key");
  }
  const membership = stringProperty(event.pdu.content, "membership");
  if (membership === undefined) {
    return reject("membership.none", "the content has no membership");
  }
  // Not in the specification's words, but other servers can't even read such a member: a membership is a user's.
  if (!isUserId(target)) {
    return reject("membership.not-a-user", `${JSON.stringify(target)} is not a user id`);
  }

  const change: MembershipChange = { event, target, create, state, rules };
  switch (membership) {
    case "join":
      return checkJoin(change);
    case "invite":
      return checkInvite(change);
    case "leave":
      return checkLeave(change);
    case "ban":
      return checkBan(change);
    case "knock":
      // v7 on.
      return rules.knocking ? checkKnock(change) : unknownMembership(membership);
    default:
      return unknownMembership(membership);
  }
}

/** v1 on, last of rule 5: otherwise, the membership is unknown. Reject. */
function unknownMembership(membership: string): AuthVerdict {
  return reject("membership.unknown", `the membership ${JSON.stringify(membership)} is unknown`);
}

/** v1 on, rule 5.4. */
function checkInvite(change: MembershipChange): AuthVerdict {
  const { event, target, state, rules } = change;
  const { sender, content } = event.pdu;

  // v1 on, rule 5.4.1: if content has a third_party_invite property, its own rules decide.
  const invite = property(content, "third_party_invite");
  if (invite !== undefined) {
    return checkThirdPartyInvite(change, invite);
  }

  // v1 on, rule 5.4.2: if the sender's current membership state is not join, reject.
  if (membershipIn(state, sender) !== "join") {
    return reject("membership.invite.sender-not-joined", `${sender} is not in the room`);
  }

  // v1 on, rule 5.4.3: if the target's current membership state is join or ban, reject.
  const current = membershipIn(state, target);
  if (current === "join" || current === "ban") {
    return reject(
      current === "join" ? "membership.invite.target-joined" : "membership.invite.target-banned",
      `the membership of ${target} is ${current}`,
    );
  }

  // v1 on, rule 5.4.4: if the sender's power level is at least the invite level, allow.
  if (powerLevelOf(sender, state, rules) >= requiredLevel("invite", state, rules)) {
    return allow("membership.invite");
  }
  // v1 on, rule 5.4.5: otherwise, reject.
  return reject("membership.invite.power", `${sender} may not invite`);
}

/** v1 on, rule 5.5. */
function checkLeave({ event, target, state, rules }: MembershipChange): AuthVerdict {
  const { sender } = event.pdu;
  const current = membershipIn(state, target);

  // v1 on, rule 5.5.1: if the sender is the target, allow if and only if the current membership state is invite or
  // join; v7 on: or knock.
  if (sender === target) {
    const leavable = current === "invite" || current === "join" || (current === "knock" && rules.knocking);
    return leavable
      ? allow("membership.leave.own")
      : reject("membership.leave.not-in-room", `the membership of ${target} is ${current}`);
  }

  // v1 on, rule 5.5.2: if the sender's current membership state is not join, reject.
  if (membershipIn(state, sender) !== "join") {
    return reject("membership.leave.sender-not-joined", `${sender} is not in the room`);
  }

  // v1 on, rule 5.5.3: if the target is banned and the sender's power level is less than the ban level, reject.
  const senderLevel = powerLevelOf(sender, state, rules);
  if (current === "ban" && !(senderLevel >= requiredLevel("ban", state, rules))) {
    return reject("membership.leave.unban-power", `${sender} may not lift a ban`);
  }

  // v1 on, rule 5.5.4: if the sender's power level is at least the kick level, and the target's is less than the
  // sender's, allow.
  if (senderLevel >= requiredLevel("kick", state, rules) && powerLevelOf(target, state, rules) < senderLevel) {
    return allow(current === "ban" ? "membership.leave.unban" : "membership.leave.kick");
  }
  // v1 on, rule 5.5.5: otherwise, reject.
  return reject("membership.leave.kick-power", `${sender} may not kick ${target}`);
}

/** v1 on, rule 5.6. */
function checkBan({ event, target, state, rules }: MembershipChange): AuthVerdict {
  const { sender } = event.pdu;

  // v1 on, rule 5.6.1: if the sender's current membership state is not join, reject.
  if (membershipIn(state, sender) !== "join") {
    return reject("membership.ban.sender-not-joined", `${sender} is not in the room`);
  }

  // v1 on, rule 5.6.2: if the sender's power level is at least the ban level, and the target's is less than the
  // sender's, allow.
  const senderLevel = powerLevelOf(sender, state, rules);
  if (senderLevel >= requiredLevel("ban", state, rules) && powerLevelOf(target, state, rules) < senderLevel) {
    return allow("membership.ban");
  }
  // v1 on, rule 5.6.3: otherwise, reject.
  return reject("membership.ban.power", `${sender} may not ban ${target}`);
}

/** v7 on, rule 5.7. */
function checkKnock({ event, target, state, rules }: MembershipChange): AuthVerdict {
  const { sender } = event.pdu;

  // v7 on, rule 5.7.1: if the join_rule is anything other than knock (v10 on: or knock_restricted), reject.
  const joinRule = joinRuleIn(state);
  if (joinRule !== "knock" && !(joinRule === "knock_restricted" && rules.knockRestricted)) {
    return reject("membership.knock.join-rule", `the join rule is ${joinRule}`);
  }

  // v7 on, rule 5.7.2: if the sender is not the target, reject.
  if (sender !== target) {
    return reject("membership.knock.other-user", `${sender} knocks for ${target}`);
  }

  // v7 on, rule 5.7.3: if the sender's current membership is not ban, invite or join, allow.
  const current = membershipIn(state, sender);
  if (current !== "ban" && current !== "invite" && current !== "join") {
    return allow("membership.knock");
  }
  // v7 on, rule 5.7.4: otherwise, reject.
  return reject("membership.knock.membership", `the membership of ${sender} is ${current}`);
}
