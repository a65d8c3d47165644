import { authChainOf } from "../event-graph.ts";
import type { EventId } from "../identifiers.ts";
import { stateEntries, stateGetByKey } from "../state.ts";
import type { StateMap } from "../state.ts";
import type { RoomEvents } from "./room-events.ts";
import type { SplitState } from "./split-conflicted.ts";

/**
 * The auth difference: what is in the full auth chain of some state sets but not of all of them. The auth chain of a
 * state set includes the events of the state themselves.
 *
 * What is unconflicted is in every set, so its auth chain is in every chain and never in the difference. Hence it is
 * enough to walk from the conflicted events, and to look at the unconflicted state (tens of thousands of members in a
 * large room) only while there are events whose place that could change.
 *
 * @returns the difference without the conflicted events themselves, which the full conflicted set holds anyway
 * @see https://spec.matrix.org/v1.19/rooms/v2/#definitions
 */
export function authDifference(
  stateSets: readonly StateMap[],
  { unconflicted, conflicted }: SplitState,
  events: RoomEvents,
): Set<EventId> {
  const chains = stateSets.map((state) => authChainOf(eventsOfKeys(state, conflicted.keys()), events.authEdges));
  const conflictedIds = new Set([...conflicted.values()].flatMap((ids) => [...ids]));
  const inEvery = new Set<EventId>();
  const difference = new Set<EventId>();
  for (const chain of chains) {
    for (const id of chain) {
      if (chains.every((other) => other.has(id))) {
        inEvery.add(id);
      } else if (!conflictedIds.has(id)) {
        difference.add(id);
      }
    }
  }
  if (difference.size > 0) {
    takeAwayChainOf(unconflicted, { difference, inEvery, chains }, events);
  }
  return difference;
}

function eventsOfKeys(state: StateMap, keys: Iterable<string>): EventId[] {
  return [...keys].map((key) => stateGetByKey(state, key)).filter((id) => id !== undefined);
}

interface Candidates {
  /** Loses what turns out to be in the auth chain of the unconflicted state. */
  readonly difference: Set<EventId>;
  /** In the chains of all sets: with an event its whole auth chain is in here, so that no walk needs to go on. */
  readonly inEvery: ReadonlySet<EventId>;
  readonly chains: readonly ReadonlySet<EventId>[];
}

function takeAwayChainOf(unconflicted: StateMap, candidates: Candidates, events: RoomEvents): void {
  const { difference, inEvery, chains } = candidates;
  const near: EventId[] = [];
  const far: EventId[] = [];
  for (const [, id] of stateEntries(unconflicted)) {
    if (!inEvery.has(id)) {
      (chains.some((chain) => chain.has(id)) ? near : far).push(id);
    }
  }
  const seen = new Set<EventId>();
  // What the conflicted events cite is walked first: it is at hand, and mostly enough.
  for (const start of [near, far]) {
    walk(start, seen, candidates, events);
    if (difference.size === 0) {
      return;
    }
  }
}

function walk(
  start: readonly EventId[],
  seen: Set<EventId>,
  { difference, inEvery }: Candidates,
  events: RoomEvents,
): void {
  const waiting = [...start];
  for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
    if (seen.has(id) || inEvery.has(id)) {
      continue;
    }
    seen.add(id);
    difference.delete(id);
    if (difference.size === 0) {
      return;
    }
    waiting.push(...events.authEdges(id));
  }
}
