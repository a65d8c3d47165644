import { checkAuthEventsSelection } from "../../matrix/authorization/auth-events-selection.ts";
import { authorize } from "../../matrix/authorization/authorize.ts";
import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { authEventIds, createEventIdOf, isStateEvent, type Event } from "../../matrix/event.ts";
import { MAX_PDU_BYTES } from "../../matrix/event-format.ts";
import { topologicalOrder } from "../../matrix/event-graph.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateKeyOf, type StateKey } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { eventSizes } from "../../storage/event-sizes.ts";
import { loadEvents } from "../../storage/events.ts";

export interface AuthorizedOutlier {
  readonly event: Event;
  /** Which auth rule refused the event by its auth events, and why; null: none. */
  readonly rejection: string | null;
}

/** An event that can't be judged yet, or ever. */
interface UndecidedOutlier {
  readonly event: Event;
  /** Those of its auth events that are missing, or can't be judged themselves. */
  readonly absent: readonly EventId[];
}

interface AuthorizedOutliers {
  /** Auth events before what builds upon them. */
  readonly authorized: readonly AuthorizedOutlier[];
  readonly undecided: readonly UndecidedOutlier[];
}

type EventLookup = (id: EventId) => Event | undefined;

/**
 * Check 4 for many events at once, in the order of their auth edges. Their auth events are taken from the input, from
 * `known` (whose answers must not change meanwhile) and from the database.
 */
export async function authorizeOutliers(
  connection: Connection,
  rules: RoomVersionRules,
  events: readonly Event[],
  known: EventLookup = () => undefined,
): Promise<AuthorizedOutliers> {
  const input = new Map(events.map((event) => [event.eventId, event]));
  const edgesOf = (event: Event): readonly EventId[] => authEventIdsWithCreate(event, rules);
  const isOutside = (id: EventId): boolean => !input.has(id) && known(id) === undefined;
  // What authorizes itself by way of others lacks one of them, in whatever order they come.
  const { ordered, cyclic } = topologicalOrder(input.values(), edgesOf);
  const entries = [...ordered, ...cyclic].map((event) => ({ event, outside: edgesOf(event).filter(isOutside) }));

  const authorized: AuthorizedOutlier[] = [];
  const undecided: UndecidedOutlier[] = [];
  const judged = new Map<EventId, Event>();
  for (const portion of await portionsByWeight(connection, entries)) {
    const loaded = await loadEvents(connection, portion.outside);
    const lookUp: EventLookup = (id) => judged.get(id) ?? known(id) ?? loaded.get(id);
    for (const event of portion.events) {
      const absent = edgesOf(event).filter((id) => lookUp(id) === undefined);
      if (absent.length > 0) {
        undecided.push({ event, absent });
        continue;
      }
      const rejection = rejectionText(authorizeByAuthEvents(event, rules, lookUp));
      const verdict = rejection === null ? event : { ...event, rejected: true };
      judged.set(event.eventId, verdict);
      authorized.push({ event: verdict, rejection });
    }
  }
  return { authorized, undecided };
}

/** Events that are judged together, and what has to be read for that. */
interface Portion {
  readonly events: Event[];
  readonly outside: EventId[];
}

/** Of the size limit, these are as large as a portion may be: nobody asks for their sizes. */
const FEW = 32;

const MAX_PORTION_BYTES = FEW * MAX_PDU_BYTES;

/** Five hundred events may name five thousand others, of 64 KiB each: of these, only so many are held at a time. */
async function portionsByWeight(
  connection: Connection,
  entries: readonly { readonly event: Event; readonly outside: readonly EventId[] }[],
): Promise<readonly Portion[]> {
  const named = new Set(entries.flatMap(({ outside }) => outside));
  if (named.size <= FEW) return [{ events: entries.map(({ event }) => event), outside: [...named] }];
  const sizes = await eventSizes(connection, [...named]);
  const portions: Portion[] = [];
  let bytes = Number.POSITIVE_INFINITY;
  let read = new Set<EventId>();
  for (const { event, outside } of entries) {
    if (bytes > MAX_PORTION_BYTES) {
      portions.push({ events: [], outside: [] });
      [bytes, read] = [0, new Set()];
    }
    const portion = portions.at(-1) as Portion;
    portion.events.push(event);
    for (const id of outside) {
      const size = sizes.get(id);
      if (size === undefined || read.has(id)) continue;
      read.add(id);
      bytes += size;
      portion.outside.push(id);
    }
  }
  return portions;
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
