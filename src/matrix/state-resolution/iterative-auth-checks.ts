import { authorize } from "../authorization/authorize.ts";
import type { AuthState } from "../authorization/verdict.ts";
import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import { stateGetByKey, stateKeyOf } from "../state.ts";
import type { StateKey, StateMap } from "../state.ts";
import { authEventOf } from "./room-events.ts";
import type { RoomEvents } from "./room-events.ts";

/** A state in the making: what was resolved so far, over the state that the resolution started from. */
export interface PartiallyResolved {
  readonly start: StateMap;
  readonly resolved: Map<StateKey, EventId>;
}

export function resolvedGet({ start, resolved }: PartiallyResolved, key: StateKey): EventId | undefined {
  return resolved.get(key) ?? stateGetByKey(start, key);
}

/**
 * The iterative auth checks: each event in turn that is allowed by the state so far enters that state. What the state
 * lacks for a check is taken from the event's own auth events.
 *
 * Rejected events have no say: they neither enter the state nor authorise others. (The specification would let those
 * in that were rejected by the state at the event and pass now; as other servers do, we keep to the verdict.)
 *
 * @param state is changed
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function iterativeAuthChecks(ordered: readonly Event[], state: PartiallyResolved, events: RoomEvents): void {
  for (const event of ordered) {
    const { pdu } = event;
    if (event.rejected || pdu.state_key === undefined) {
      continue;
    }
    if (authorize(event, stateFor(event, state, events), events.rules).allowed) {
      state.resolved.set(stateKeyOf(pdu.type, pdu.state_key), event.eventId);
    }
  }
}

function stateFor(event: Event, state: PartiallyResolved, events: RoomEvents): AuthState {
  return (type, stateKey) => {
    const id = resolvedGet(state, stateKeyOf(type, stateKey));
    const inState = id === undefined ? undefined : events.event(id);
    if (inState !== undefined && !inState.rejected) {
      return inState;
    }
    const authEvent = authEventOf(event, type, stateKey, events);
    return authEvent?.rejected === true ? undefined : authEvent;
  };
}
