import { stringProperty } from "./content.ts";
import type { AuthState } from "./verdict.ts";

/**
 * Who may join; `invite` where the room has no readable `m.room.join_rules`.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomjoin_rules
 */
export function joinRuleIn(state: AuthState): string {
  const event = state("m.room.join_rules", "");
  return (event && stringProperty(event.pdu.content, "join_rule")) ?? "invite";
}

/** A user's membership; `leave` for one who was never seen. */
export function membershipIn(state: AuthState, user: string): string {
  const event = state("m.room.member", user);
  return (event && stringProperty(event.pdu.content, "membership")) ?? "leave";
}
