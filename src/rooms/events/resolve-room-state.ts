import { authEventIds, type Event } from "../../matrix/event.ts";
import type { EventId } from "../../matrix/identifiers.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import type { StateMap } from "../../matrix/state.ts";
import { conflictedEventIds } from "../../matrix/state-resolution/split-conflicted.ts";
import { resolveState } from "../../matrix/state-resolution/resolve.ts";
import type { Connection } from "../../storage/database.ts";
import { authChainIds } from "../../storage/auth-chains.ts";
import { loadEvents } from "../../storage/events.ts";

/**
 * The resolution of several states of a room, with the events that it needs from the database.
 *
 * The resolver is synchronous and asks only for what matters to the answer, which is little beside a large room's
 * state. So it is first given the conflicted events and their auth chains; what it asks for beyond is loaded, with its
 * auth chain, and it starts again. Each turn loads something or is the last.
 *
 * @param extra events that are not in the database yet
 */
export async function resolveRoomState(
  connection: Connection,
  rules: RoomVersionRules,
  stateSets: readonly StateMap[],
  extra: readonly Event[] = [],
): Promise<StateMap> {
  const conflicted = conflictedEventIds(stateSets);
  const first = stateSets[0];
  if (first === undefined) throw new Error("there is no state to resolve");
  if (conflicted.size === 0) return first;

  const events = new Map<EventId, Event | undefined>(extra.map((event) => [event.eventId, event]));
  let wanted = new Set<EventId>([...conflicted, ...extra.flatMap((event) => authEventIds(event.pdu))]);
  for (;;) {
    await loadWithAuthChains(connection, wanted, events);
    wanted = new Set<EventId>();
    const resolved = resolveState({
      rules,
      stateSets,
      event: (id) => {
        if (!events.has(id)) wanted.add(id);
        return events.get(id);
      },
    });
    if (wanted.size === 0) return resolved;
  }
}

/** An id that the database does not hold is entered as undefined, so that it is asked for once. */
async function loadWithAuthChains(
  connection: Connection,
  ids: ReadonlySet<EventId>,
  into: Map<EventId, Event | undefined>,
): Promise<void> {
  const unknown = [...ids].filter((id) => !into.has(id));
  const chain = (await authChainIds(connection, unknown)).filter((id) => !into.has(id));
  const loaded = await loadEvents(connection, [...new Set([...unknown, ...chain])]);
  for (const [id, event] of loaded) into.set(id, event);
  for (const id of unknown) if (!into.has(id)) into.set(id, undefined);
}
