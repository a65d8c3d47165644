import { authorize } from "../../matrix/authorization/authorize.ts";
import { authTypesFor } from "../../matrix/authorization/auth-types.ts";
import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { isStateEvent, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateFromEntries, stateGet, stateKeyOf, type StateKey, type StateMap } from "../../matrix/state.ts";
import { withOmittedMembers } from "../../matrix/state-resolution/omitted-members.ts";
import type { Connection } from "../../storage/database.ts";
import { authEventIdsWithCreate, authorizeByAuthEvents } from "./authorize-outliers.ts";
import { eventsOf, unwrittenState, type EventsAtHand } from "./events-at-hand.ts";
import { resolveRoomState } from "./resolve-room-state.ts";

/** An auth event is not in the database: it must be fetched before the event can be judged. */
export class AuthEventsMissing extends Error {
  readonly eventIds: readonly EventId[];

  constructor(eventIds: readonly EventId[]) {
    super(`auth events are missing: ${eventIds.join(", ")}`);
    this.name = "AuthEventsMissing";
    this.eventIds = eventIds;
  }
}

interface Judgement {
  readonly tx: Connection;
  readonly rules: RoomVersionRules;
  readonly event: Event;
  readonly atHand?: EventsAtHand;
}

/** The state before an event, as it is known. */
interface StateBefore {
  readonly state: StateMap;
  readonly partial: boolean;
}

/**
 * Check 4, the auth rules against the event's own auth events, and check 5, the same against the state before it.
 *
 * @throws AuthEventsMissing
 */
export async function judgeEvent(judgement: Judgement, before: StateBefore): Promise<AuthVerdict> {
  const { rules, event } = judgement;
  const ids = authEventIdsWithCreate(event, rules);
  const authEvents = await eventsOf(judgement, ids);
  const missing = ids.filter((id) => !authEvents.has(id));
  if (missing.length > 0) throw new AuthEventsMissing(missing);
  const byAuthEvents = authorizeByAuthEvents(event, rules, (id) => authEvents.get(id));
  if (!byAuthEvents.allowed) return byAuthEvents;
  const state = before.partial ? await supposedState(judgement, before.state, [...authEvents.values()]) : before.state;
  return await judgeByState(judgement, state);
}

/** Checks 5 and 6: the auth rules against a state of the room. */
export async function judgeByState(judgement: Judgement, state: StateMap): Promise<AuthVerdict> {
  const { rules, event } = judgement;
  const wanted = new Map<StateKey, EventId>();
  const keys: (readonly [string, string])[] = [["m.room.create", ""], ...authTypesFor(event.pdu, rules)];
  for (const [type, stateKey] of keys) {
    const id = stateGet(state, type, stateKey);
    if (id !== undefined) wanted.set(stateKeyOf(type, stateKey), id);
  }
  const events = await eventsOf(judgement, [...wanted.values()]);
  return authorize(
    event,
    (type, stateKey) => {
      const id = wanted.get(stateKeyOf(type, stateKey));
      return id === undefined ? undefined : events.get(id);
    },
    rules,
  );
}

/**
 * What check 5 is asked against on partial state, which can't refuse an event for what it lacks: the resolution of the
 * partial state and the event's own auth events. A ban that we know still wins; a membership that we lack is taken from
 * the auth events as it stands, since the room's rules may have changed after it.
 */
async function supposedState(
  judgement: Judgement,
  partialState: StateMap,
  authEvents: readonly Event[],
): Promise<StateMap> {
  const { tx, rules, event } = judgement;
  const claimed = stateFromEntries(
    authEvents.flatMap((authEvent) =>
      isStateEvent(authEvent.pdu) && !authEvent.rejected
        ? [[stateKeyOf(authEvent.pdu.type, authEvent.pdu.state_key), authEvent.eventId] as const]
        : [],
    ),
  );
  const relevant = restrictTo(partialState, event, rules);
  return await resolveRoomState(tx, rules, withOmittedMembers([relevant, claimed]), unwrittenState(judgement));
}

/**
 * Only what the auth rules will look at, so that everything else in the room's state is not taken for conflicted
 * merely because the event's auth events don't list it.
 */
function restrictTo(state: StateMap, event: Event, rules: RoomVersionRules): StateMap {
  const keys: (readonly [string, string])[] = [["m.room.create", ""], ...authTypesFor(event.pdu, rules)];
  return stateFromEntries(
    keys.flatMap(([type, stateKey]) => {
      const id = stateGet(state, type, stateKey);
      return id === undefined ? [] : [[stateKeyOf(type, stateKey), id] as const];
    }),
  );
}
