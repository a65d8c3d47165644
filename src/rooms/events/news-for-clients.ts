import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateGetByKey, type StateKey } from "../../matrix/state.ts";
import type { RoomsContext } from "../context.ts";
import type { CurrentStateChange } from "./update-current-state.ts";

/**
 * Of a change from partial state what clients are told: what they may have seen otherwise. The thousands of memberships
 * that were merely unknown until now are no news: a lazy-loading client asks for those it needs, another one first sees
 * the room when it is whole.
 */
export function newsForClients(ctx: RoomsContext, change: CurrentStateChange): ReadonlyMap<StateKey, EventId | null> {
  const news = new Map<StateKey, EventId | null>();
  for (const [key, eventId] of change.changes) {
    const [type, stateKey] = splitStateKey(key);
    const wasUnknown = type === "m.room.member" && stateGetByKey(change.previous, key) === undefined;
    if (!wasUnknown || serverNameOf(stateKey as UserId) === ctx.serverName) news.set(key, eventId);
  }
  return news;
}
