import { reject, type AuthVerdict } from "../../matrix/authorization/verdict.ts";
import { followForwardExtremities } from "../../matrix/forward-extremities.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import type { ResyncDrop } from "../../storage/resync-drops.ts";
import { arrivalsFrom } from "../../storage/room-graph.ts";
import { orTheJoin, positionOfJoin } from "../events/recompute-room.ts";
import { stateBeforeEvent, type StateSource, type StoredState } from "../events/state-before-event.ts";

/** An event whose state nobody can give can't be judged, and what is not proved is not believed. */
export function verdictOnDropped({ by, why }: ResyncDrop): AuthVerdict {
  const reason = `nobody could give the state before it, and it was dropped by ${by}`;
  return reject("operator.dropped", why === "" ? reason : `${reason}: ${why}`);
}

/**
 * What stands in for the state before an event that an operator has dropped, and so after it: the states after those of
 * its prev_events that are known. Where none is, the room's state when it arrived, as far as that is known in full: the
 * resolution over the forward extremities that the earlier arrivals make. The join, which is repaired before anything
 * is dropped, is always among these.
 */
export async function stateBeforeDropped(
  source: StateSource,
  event: StoredEvent,
  { known, joinEventId }: { readonly known: readonly StoredEvent[]; readonly joinEventId: EventId },
): Promise<StoredState> {
  if (known.length > 0) return await stateBeforeEvent(source, known);
  const extremities = await extremitiesAtArrival(source, event, joinEventId);
  return await stateBeforeEvent(source, [...(await loadEvents(source.tx, [...extremities])).values()]);
}

async function extremitiesAtArrival(
  source: StateSource,
  { streamId }: StoredEvent,
  joinEventId: EventId,
): Promise<ReadonlySet<EventId>> {
  const extremities = followForwardExtremities();
  for (const arrival of await arrivalsFrom(source.tx, source.roomId, await positionOfJoin(source, joinEventId))) {
    if (streamId !== null && arrival.streamId >= streamId) break;
    if (arrival.partial || arrival.stateAfter === null) continue;
    if (arrival.rejected || arrival.softFailed) extremities.refuse(arrival);
    else extremities.accept(arrival);
  }
  return orTheJoin(extremities.current(), joinEventId);
}
