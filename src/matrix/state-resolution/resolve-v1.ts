import { authorize } from "../authorization/authorize.ts";
import type { AuthState } from "../authorization/verdict.ts";
import { depthOf } from "../event.ts";
import type { Event } from "../event.ts";
import { sha1OfEventId } from "../hashes.ts";
import type { EventId } from "../identifiers.ts";
import { splitStateKey, stateApply, stateGetByKey, stateKeyOf, stateOver } from "../state.ts";
import type { StateKey, StateMap } from "../state.ts";
import type { RoomEvents } from "./room-events.ts";
import { splitConflictedState } from "./split-conflicted.ts";

/**
 * State resolution of room version 1: by depth and the hash of the event id, power levels before join rules before
 * members before the rest.
 *
 * Here a key that some state sets lack is not in conflict as long as the others agree.
 *
 * @see https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
 */
export function resolveStateV1(stateSets: readonly StateMap[], events: RoomEvents): StateMap {
  const { unconflicted, conflicted } = splitConflictedState(stateSets);
  const agreed: [StateKey, EventId][] = [];
  const conflicts = new Map<StateKey, readonly Event[]>();
  for (const [key, ids] of conflicted) {
    const candidates = [...ids].map((id) => events.event(id)).filter((event) => event?.rejected === false);
    const [first, ...others] = byDepthThenHash(candidates.filter((event) => event !== undefined));
    if (first !== undefined && others.length > 0) {
      conflicts.set(key, [first, ...others]);
    } else if (first !== undefined) {
      agreed.push([key, first.eventId]);
    }
  }
  // R of the specification: the resolution so far.
  let result = stateOver(unconflicted, agreed);

  for (const phase of ["m.room.power_levels", "m.room.join_rules", "m.room.member"]) {
    const resolved: [StateKey, EventId][] = [];
    for (const [key, candidates] of conflicts) {
      if (isOfPhase(key, phase)) {
        resolved.push([key, lastOfAllowedRun(key, candidates, result, events).eventId]);
        conflicts.delete(key);
      }
    }
    // Entered together, so that the order of members makes no difference.
    result = stateOver(result, resolved);
  }

  const rest = [...conflicts].map(([key, candidates]) => [key, firstAllowed(candidates, result, events)] as const);
  return stateApply(result, rest);
}

function isOfPhase(key: StateKey, phase: string): boolean {
  const [type, stateKey] = splitStateKey(key);
  return type === phase && (type !== "m.room.power_levels" || stateKey === "");
}

/** By ascending depth, then descending `sha1(event_id)`. */
function byDepthThenHash(events: readonly Event[]): readonly Event[] {
  const keyed = events.map((event) => ({ event, depth: depthOf(event.pdu), hash: sha1OfEventId(event.eventId) }));
  keyed.sort((one, other) => {
    if (one.depth !== other.depth) {
      return one.depth < other.depth ? -1 : 1;
    }
    return one.hash > other.hash ? -1 : 1;
  });
  return keyed.map(({ event }) => event);
}

/** Power levels, join rules and members: the first is taken, and each next one that the state with the one before allows. */
function lastOfAllowedRun(key: StateKey, ordered: readonly Event[], result: StateMap, events: RoomEvents): Event {
  let [accepted] = ordered;
  if (accepted === undefined) {
    throw new RangeError("a conflict without events");
  }
  for (const event of ordered.slice(1)) {
    const current = accepted;
    const below = stateOf(result, events);
    const state: AuthState = (type, stateKey) => (stateKeyOf(type, stateKey) === key ? current : below(type, stateKey));
    if (!authorize(event, state, events.rules).allowed) {
      break;
    }
    accepted = event;
  }
  return accepted;
}

/** All other types: the deepest event, with the least hash, that the state allows; the least deep one if it allows none. */
function firstAllowed(ordered: readonly Event[], result: StateMap, events: RoomEvents): EventId | null {
  const state = stateOf(result, events);
  const allowed = ordered.findLast((event) => authorize(event, state, events.rules).allowed);
  return (allowed ?? ordered[0])?.eventId ?? null;
}

function stateOf(state: StateMap, events: RoomEvents): AuthState {
  return (type, stateKey) => {
    const id = stateGetByKey(state, stateKeyOf(type, stateKey));
    const event = id === undefined ? undefined : events.event(id);
    return event?.rejected === true ? undefined : event;
  };
}
