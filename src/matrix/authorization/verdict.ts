import type { Event } from "../event.ts";

/**
 * What the authorization rules say of an event. A refusal is an expected outcome, so it is a value.
 *
 * `rule` is a stable dotted code (`membership.join.banned`) that names the rule which decided: it is what to count and
 * to test by. `reason` is for people, and its wording may change.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#authorization-rules
 */
export type AuthVerdict =
  | { readonly allowed: true; readonly rule: string }
  | { readonly allowed: false; readonly rule: string; readonly reason: string };

/** The state an event is checked against: the event that holds (type, state key), if there is one. */
export type AuthState = (type: string, stateKey: string) => Event | undefined;

export function allow(rule: string): AuthVerdict {
  return { allowed: true, rule };
}

export function reject(rule: string, reason: string): AuthVerdict {
  return { allowed: false, rule, reason };
}
