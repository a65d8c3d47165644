import { checkAuthEventsSelection } from "../../matrix/authorization/auth-events-selection.ts";
import { authorize } from "../../matrix/authorization/authorize.ts";
import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { authEventIds, createEventIdOf, isStateEvent, type Event } from "../../matrix/event.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateKeyOf, type StateKey } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents } from "../../storage/events.ts";

export interface AuthorizedOutlier {
  readonly event: Event;
  /** Which auth rule refused the event by its auth events, and why; null: none. */
  readonly rejection: string | null;
}

interface AuthorizedOutliers {
  readonly authorized: readonly AuthorizedOutlier[];
  /** Events that can't be judged: an auth event of theirs (or of one of those) is missing. */
  readonly undecided: readonly Event[];
  /** Those that can't ever be: they authorize themselves by way of others, or build on such ones. */
  readonly cyclic: readonly Event[];
  /** The auth events that are missing for that. */
  readonly missing: ReadonlySet<EventId>;
}

/**
 * Check 4 for many events at once, in the order of their auth edges. Their auth events are taken from the input, from
 * `known` and from the database.
 */
export async function authorizeOutliers(
  connection: Connection,
  rules: RoomVersionRules,
  events: readonly Event[],
  known: ReadonlyMap<EventId, Event> = new Map(),
): Promise<AuthorizedOutliers> {
  const input = new Map(events.map((event) => [event.eventId, event]));
  const decided = new Map<EventId, Event>(known);
  const outside = new Set<EventId>();
  for (const event of events) {
    for (const id of authEventIdsWithCreate(event, rules)) if (!input.has(id) && !decided.has(id)) outside.add(id);
  }
  for (const [id, event] of await loadEvents(connection, [...outside])) decided.set(id, event);

  const authorized: AuthorizedOutlier[] = [];
  const { ordered, cyclic } = topologicalOrder(input.values(), (one) => authEventIdsWithCreate(one, rules));
  const undecided: Event[] = [];
  const missing = new Set<EventId>();
  for (const event of ordered) {
    const absent = authEventIdsWithCreate(event, rules).filter((id) => !decided.has(id));
    if (absent.length > 0) {
      undecided.push(event);
      absent.filter((id) => !input.has(id)).forEach((id) => missing.add(id));
      continue;
    }
    const verdict = authorizeByAuthEvents(event, rules, (id) => decided.get(id));
    const rejection = rejectionText(verdict);
    const judged = rejection === null ? event : { ...event, rejected: true };
    decided.set(event.eventId, judged);
    authorized.push({ event: judged, rejection });
  }
  return { authorized, undecided, cyclic, missing };
}

/** The auth events of an event, with the create event that room version 12 leaves out of them. */
export function authEventIdsWithCreate(event: Event, rules: RoomVersionRules): readonly EventId[] {
  const ids = authEventIds(event.pdu);
  const createEventId = createEventIdOf(rules, event.roomId);
  return createEventId === undefined || createEventId === event.eventId ? ids : [...ids, createEventId];
}

/** Check 4: the selection of the auth events, then the auth rules against them. */
export function authorizeByAuthEvents(
  event: Event,
  rules: RoomVersionRules,
  lookUp: (id: EventId) => Event | undefined,
): AuthVerdict {
  const selection = checkAuthEventsSelection(event, authEventIds(event.pdu).map(lookUp), rules);
  if (!selection.allowed) return selection;
  const state = new Map<StateKey, Event>();
  for (const id of authEventIdsWithCreate(event, rules)) {
    const authEvent = lookUp(id);
    if (authEvent !== undefined && isStateEvent(authEvent.pdu)) {
      state.set(stateKeyOf(authEvent.pdu.type, authEvent.pdu.state_key), authEvent);
    }
  }
  return authorize(event, (type, stateKey) => state.get(stateKeyOf(type, stateKey)), rules);
}

/** How a refusal is stored: the rule's code, then its reason in words. */
export function rejectionText(verdict: AuthVerdict): string | null {
  return verdict.allowed ? null : `${verdict.rule}: ${verdict.reason}`;
}

/** The two parts of such a text. */
export function ruleAndReasonOf(rejection: string): { readonly rule: string; readonly reason: string } {
  const colon = rejection.indexOf(": ");
  return { rule: rejection.slice(0, colon), reason: rejection.slice(colon + 2) };
}
