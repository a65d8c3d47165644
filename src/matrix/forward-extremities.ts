import type { EventId } from "./identifiers.ts";

/** An event as the room's graph sees it. */
export interface GraphEvent {
  readonly eventId: EventId;
  readonly prevEventIds: readonly EventId[];
}

/**
 * The forward extremities of a room while its events arrive: the accepted events upon which no accepted one builds.
 *
 * A refused event (rejected or soft-failed) is no extremity and leaves those that it names in place; but an accepted
 * event that builds on it builds, through it, on its prev_events. Events may arrive after those that build on them.
 */
export interface ForwardExtremities {
  accept(event: GraphEvent): void;
  refuse(event: GraphEvent): void;
  current(): ReadonlySet<EventId>;
}

export function followForwardExtremities(): ForwardExtremities {
  const extremities = new Set<EventId>();
  /** Upon these an accepted event builds, be it through refused ones. */
  const covered = new Set<EventId>();
  const prevEventsOfRefused = new Map<EventId, readonly EventId[]>();

  function cover(eventIds: readonly EventId[]): void {
    const waiting = [...eventIds];
    for (let id = waiting.pop(); id !== undefined; id = waiting.pop()) {
      if (covered.has(id)) continue;
      covered.add(id);
      extremities.delete(id);
      waiting.push(...(prevEventsOfRefused.get(id) ?? []));
    }
  }

  return {
    accept({ eventId, prevEventIds }) {
      cover(prevEventIds);
      if (!covered.has(eventId)) extremities.add(eventId);
    },
    refuse({ eventId, prevEventIds }) {
      prevEventsOfRefused.set(eventId, prevEventIds);
      if (covered.has(eventId)) cover(prevEventIds);
    },
    current: () => extremities,
  };
}
