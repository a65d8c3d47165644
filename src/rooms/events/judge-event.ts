import { authorize } from "../../matrix/authorization/authorize.ts";
import { authTypesFor } from "../../matrix/authorization/auth-types.ts";
import type { AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { isStateEvent, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateFromEntries, stateGet, stateKeyOf, type StateKey, type StateMap } from "../../matrix/state.ts";
import type { Connection } from "../../storage/database.ts";
import { loadEvents } from "../../storage/events.ts";
import { authEventIdsWithCreate, authorizeByAuthEvents } from "./authorize-outliers.ts";
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
}

/**
 * Check 4: the auth rules against the event's own auth events.
 *
 * @throws AuthEventsMissing
 */
export async function judgeByAuthEvents({ tx, rules, event }: Judgement): Promise<AuthVerdict> {
  const ids = authEventIdsWithCreate(event, rules);
  const authEvents = await loadEvents(tx, ids);
  const missing = ids.filter((id) => !authEvents.has(id));
  if (missing.length > 0) throw new AuthEventsMissing(missing);
  return authorizeByAuthEvents(event, rules, (id) => authEvents.get(id));
}

/** Checks 5 and 6: the auth rules against a state of the room. */
export async function judgeByState({ tx, rules, event }: Judgement, state: StateMap): Promise<AuthVerdict> {
  const wanted = new Map<StateKey, EventId>();
  const keys: (readonly [string, string])[] = [["m.room.create", ""], ...authTypesFor(event.pdu, rules)];
  for (const [type, stateKey] of keys) {
    const id = stateGet(state, type, stateKey);
    if (id !== undefined) wanted.set(stateKeyOf(type, stateKey), id);
  }
  const events = await loadEvents(tx, [...wanted.values()]);
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
 * Check 5 on partial state: a state that lacks most memberships can't refuse an event for what it lacks. So the rules
 * are asked against the resolution of the partial state and the event's own auth events: a ban that we know still
 * wins, a membership that we lack is filled in.
 */
export async function judgeByPartialState(judgement: Judgement, partialState: StateMap): Promise<AuthVerdict> {
  const { tx, rules, event } = judgement;
  const authEvents = await loadEvents(tx, authEventIdsWithCreate(event, rules));
  const claimed = stateFromEntries(
    [...authEvents.values()].flatMap((authEvent) =>
      isStateEvent(authEvent.pdu) && !authEvent.rejected
        ? [[stateKeyOf(authEvent.pdu.type, authEvent.pdu.state_key), authEvent.eventId] as const]
        : [],
    ),
  );
  const relevant = restrictTo(partialState, event, rules);
  return await judgeByState(judgement, await resolveRoomState(tx, rules, [relevant, claimed]));
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
