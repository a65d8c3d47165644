import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import type { RoomVersionRules } from "../room-versions.ts";
import { emptyState } from "../state.ts";
import type { StateMap } from "../state.ts";
import { resolveStateV1 } from "./resolve-v1.ts";
import { resolveStateV2 } from "./resolve-v2.ts";
import { roomEvents } from "./room-events.ts";

interface StateToResolve {
  readonly rules: RoomVersionRules;
  /** The states after each of the previous events, in any order. */
  readonly stateSets: readonly StateMap[];
  /**
   * Gives every event that the states name or that is in the auth chain of such a one. One that it doesn't know is
   * treated as if nothing named it.
   */
  readonly event: (id: EventId) => Event | undefined;
}

/**
 * The room state before an event: the resolution of the states after its previous events, by the algorithm of the
 * room's version. The answer depends neither on the order of the states nor on that of their entries.
 *
 * The answer shares its base with one of the states, so that what changed is cheap to find.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
 */
export function resolveState({ rules, stateSets, event }: StateToResolve): StateMap {
  const [first, ...others] = stateSets;
  if (first === undefined || others.length === 0) {
    return first ?? emptyState;
  }
  const events = roomEvents(rules, event);
  switch (rules.stateResolution) {
    case "v1":
      return resolveStateV1(stateSets, events);
    case "v2":
    case "v2.1":
      return resolveStateV2(stateSets, events);
  }
}
