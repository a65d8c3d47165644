import type { Event } from "../event.ts";
import type { EventId } from "../identifiers.ts";
import { emptyState, stateApply, stateGetByKey, stateKeyOf } from "../state.ts";
import type { StateMap } from "../state.ts";
import { authDifference } from "./auth-difference.ts";
import { conflictedSubgraph } from "./conflicted-subgraph.ts";
import { iterativeAuthChecks, resolvedGet } from "./iterative-auth-checks.ts";
import type { PartiallyResolved } from "./iterative-auth-checks.ts";
import { mainlineOrder } from "./mainline-order.ts";
import { isPowerEvent, reverseTopologicalPowerOrder, withConflictedAuthChains } from "./power-order.ts";
import type { RoomEvents } from "./room-events.ts";
import { splitConflictedState } from "./split-conflicted.ts";
import type { SplitState } from "./split-conflicted.ts";

/**
 * State resolution of room versions 2 to 11 (v2) and 12 (v2.1, which starts from nothing instead of the unconflicted
 * state, and goes through the conflicted state subgraph as well).
 *
 * @see https://spec.matrix.org/v1.19/rooms/v2/#algorithm
 * @see https://spec.matrix.org/v1.19/rooms/v12/#algorithm
 */
export function resolveStateV2(stateSets: readonly StateMap[], events: RoomEvents): StateMap {
  const split = splitConflictedState(stateSets);
  const { unconflicted, conflicted } = split;
  if (conflicted.size === 0) {
    return unconflicted;
  }
  const isV21 = events.rules.stateResolution === "v2.1";
  const fullConflicted = fullConflictedSet(stateSets, split, events);

  // Step 1: the power events of the full conflicted set with their auth chains, in the power ordering.
  const powerEvents = fullConflicted.filter(isPowerEvent).map(({ eventId }) => eventId);
  const fullConflictedIds = new Set(fullConflicted.map(({ eventId }) => eventId));
  const selected = withConflictedAuthChains(powerEvents, fullConflictedIds, events);

  // Step 2: the iterative auth checks on them, from the unconflicted state (v2) or from nothing (v2.1).
  const state: PartiallyResolved = { start: isV21 ? emptyState : unconflicted, resolved: new Map() };
  iterativeAuthChecks(reverseTopologicalPowerOrder(selected, events), state, events);

  // Step 3: the remaining events in the mainline ordering of the power levels that came out.
  const powerLevelsId = resolvedGet(state, stateKeyOf("m.room.power_levels", ""));
  const powerLevels = powerLevelsId === undefined ? undefined : events.event(powerLevelsId);
  const remaining = fullConflicted.filter(({ eventId }) => !selected.has(eventId));

  // Step 4: the iterative auth checks on these.
  iterativeAuthChecks(mainlineOrder(remaining, powerLevels, events), state, events);

  // Step 5: where there is an unconflicted event, it stays.
  const resolved = [...state.resolved].filter(([key]) => stateGetByKey(unconflicted, key) === undefined);
  return stateApply(unconflicted, resolved);
}

/** The conflicted state set, the auth difference and (v2.1) the conflicted state subgraph. */
function fullConflictedSet(stateSets: readonly StateMap[], split: SplitState, events: RoomEvents): readonly Event[] {
  const conflictedIds = new Set<EventId>([...split.conflicted.values()].flatMap((ids) => [...ids]));
  const ids = new Set([...conflictedIds, ...authDifference(stateSets, split, events)]);
  if (events.rules.stateResolution === "v2.1") {
    for (const id of conflictedSubgraph(conflictedIds, events)) {
      ids.add(id);
    }
  }
  return [...ids].map((id) => events.event(id)).filter((event) => event !== undefined);
}
