import type { Event } from "../../matrix/event.ts";
import type { EventId, ServerName } from "../../matrix/identifiers.ts";
import { stateApply, stateGet, stateKeyOf, type StateKey, type StateMap } from "../../matrix/state.ts";
import { withOmittedMembers } from "../../matrix/state-resolution/omitted-members.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { localJoinedMembers } from "../../storage/memberships.ts";
import { resolveRoomState } from "./resolve-room-state.ts";
import type { StateSource } from "./state-before-event.ts";

/**
 * The resolution of several states of a room: exact where they are full, and where some of them are partial as good a
 * guess as can be had, which the resync puts right.
 *
 * @param unstored events of these states that are not in the database yet
 */
export async function resolveStates(
  source: StateSource,
  states: readonly StateMap[],
  unstored: readonly Event[] = [],
): Promise<StateMap> {
  const { tx, rules, partialFor } = source;
  if (partialFor === undefined || states.length < 2) return await resolveRoomState(tx, rules, states, unstored);
  const resolved = await resolveRoomState(tx, rules, withOmittedMembers(states), unstored);
  return await withOurJoins({ ...source, partialFor }, resolved, unstored);
}

/**
 * The notes on faster joins trust partial state in the memberships of our own users. So a resolution with the state of
 * before our join, or under join rules that have changed since, takes none of them out of the room: only a leave, kick
 * or ban that came later does, or the full state in the end.
 */
async function withOurJoins(
  { tx, roomId, partialFor }: StateSource & { readonly partialFor: ServerName },
  resolved: StateMap,
  unstored: readonly Event[],
): Promise<StateMap> {
  const lost = (await localJoinedMembers(tx, roomId, partialFor)).flatMap(({ userId, eventId }) => {
    const replacement = stateGet(resolved, "m.room.member", userId);
    return replacement === eventId ? [] : [{ userId, eventId, replacement }];
  });
  if (lost.length === 0) return resolved;
  const events = await loadEvents(
    tx,
    lost.flatMap(({ eventId, replacement }) => [eventId, ...(replacement === undefined ? [] : [replacement])]),
  );
  const arriving = new Set(unstored.map(({ eventId }) => eventId));
  const kept = lost.flatMap(({ userId, eventId, replacement }): readonly (readonly [StateKey, EventId])[] => {
    const isLater = replacement !== undefined && (arriving.has(replacement) || cameLater(events, replacement, eventId));
    const stands = events.get(eventId)?.rejection === null && !isLater;
    return stands ? [[stateKeyOf("m.room.member", userId), eventId]] : [];
  });
  return kept.length === 0 ? resolved : stateApply(resolved, kept);
}

function cameLater(events: ReadonlyMap<EventId, StoredEvent>, one: EventId, other: EventId): boolean {
  const [later, earlier] = [events.get(one)?.streamId ?? null, events.get(other)?.streamId ?? null];
  return later !== null && earlier !== null && later > earlier;
}
