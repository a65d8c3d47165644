import { prevEventIds } from "../event.ts";
import { stringProperty } from "./content.ts";
import { creatorsOf } from "./create.ts";
import { joinRuleIn, membershipIn } from "./join-rules.ts";
import { powerLevelOf, requiredLevel } from "./levels.ts";
import type { MembershipChange } from "./membership.ts";
import { allow, reject } from "./verdict.ts";
import type { AuthVerdict } from "./verdict.ts";

/**
 * The rules for a membership of `join`: rule 5.3 of room version 12, 4.3 of v8–v11, 4.2 of v6–v7, 5.2 of v1–v5.
 * The numbers below are those of version 12.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v12/#authorization-rules
 */
export function checkJoin(change: MembershipChange): AuthVerdict {
  const { event, target, state } = change;
  const { sender } = event.pdu;

  if (isFirstJoin(change)) {
    return allow("membership.join.creator");
  }

  // v1 on, rule 5.3.2: if the sender does not match state_key, reject.
  if (sender !== target) {
    return reject("membership.join.other-user", `${sender} joins for ${target}`);
  }

  // v1 on, rule 5.3.3: if the sender is banned, reject.
  const current = membershipIn(state, sender);
  if (current === "ban") {
    return reject("membership.join.banned", `${sender} is banned`);
  }

  return checkJoinRule(change, current === "invite" || current === "join", joinRuleIn(state));
}

function checkJoinRule(change: MembershipChange, invited: boolean, joinRule: string): AuthVerdict {
  const { rules, target } = change;

  // v1 on, rule 5.3.4: if the join_rule is invite (v7 on: or knock), allow if the membership state is invite or join.
  if (joinRule === "invite" || (joinRule === "knock" && rules.knocking)) {
    return invited
      ? allow(`membership.join.${joinRule}`)
      : reject("membership.join.not-invited", `the join rule is ${joinRule}, and ${target} is not invited`);
  }

  // v8 on, rule 5.3.5: if the join_rule is restricted (v10 on: or knock_restricted):
  if (
    (joinRule === "restricted" && rules.restrictedJoins) ||
    (joinRule === "knock_restricted" && rules.knockRestricted)
  ) {
    // v8 on, rule 5.3.5.1: if the membership state is join or invite, allow.
    return invited ? allow("membership.join.restricted.invited") : checkAuthorisedJoin(change);
  }

  // v1 on, rule 5.3.6: if the join_rule is public, allow.
  if (joinRule === "public") {
    return allow("membership.join.public");
  }
  // v1 on, rule 5.3.7: otherwise, reject.
  return reject("membership.join.join-rule", `the join rule is ${joinRule}`);
}

/**
 * v1–v10, rule 5.3.1: the only previous event is an m.room.create and the state_key is the creator; v11 on: is the
 * sender of the m.room.create. (v12's additional creators join as everybody else.)
 */
function isFirstJoin({ event, target, create, rules }: MembershipChange): boolean {
  const [only, ...others] = prevEventIds(event.pdu);
  return only === create.eventId && others.length === 0 && creatorsOf(create, rules)[0] === target;
}

/**
 * v8 on, rule 5.3.5.2: if the join_authorised_via_users_server key in content is not a user with sufficient permission
 * to invite other users, reject. One who is not in the room has no permissions there.
 */
function checkAuthorisedJoin({ event, state, rules }: MembershipChange): AuthVerdict {
  const user = stringProperty(event.pdu.content, "join_authorised_via_users_server");
  if (user === undefined) {
    return reject("membership.join.restricted.unauthorised", "nobody in the room vouches for the join");
  }
  if (membershipIn(state, user) !== "join") {
    return reject("membership.join.restricted.authoriser-not-joined", `${user} is not in the room`);
  }
  if (!(powerLevelOf(user, state, rules) >= requiredLevel("invite", state, rules))) {
    return reject("membership.join.restricted.authoriser-power", `${user} may not invite`);
  }
  // v8 on, rule 5.3.5.3: otherwise, allow.
  return allow("membership.join.restricted.authorised");
}
