import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateGetByKey, type StateKey } from "../../matrix/state.ts";
import { sendersSinceJoin } from "../../storage/room-graph.ts";
import type { RoomsContext } from "../context.ts";
import type { StateSource } from "./state-before-event.ts";
import type { CurrentStateChange } from "./update-current-state.ts";

/**
 * Of a change from partial state what clients are told: what they may have seen otherwise. The thousands of memberships
 * that were merely unknown until now are no news: a lazy-loading client asks for those it needs, another one first sees
 * the room when it is whole. But of who has sent something a lazy-loading client was told a membership, by the auth
 * events of what they sent, which may have been an old one.
 */
export async function newsForClients(
  { serverName: ourServer }: Pick<RoomsContext, "serverName">,
  { tx, roomId }: Pick<StateSource, "tx" | "roomId">,
  change: Pick<CurrentStateChange, "previous" | "changes">,
): Promise<ReadonlyMap<StateKey, EventId | null>> {
  const news = new Map<StateKey, EventId | null>();
  const unknown = new Map<UserId, readonly [StateKey, EventId | null]>();
  for (const entry of change.changes) {
    const userId = userOf(entry[0]);
    const wasUnknown = userId !== undefined && stateGetByKey(change.previous, entry[0]) === undefined;
    if (wasUnknown && serverNameOf(userId) !== ourServer) unknown.set(userId, entry);
    else news.set(...entry);
  }
  if (unknown.size === 0) return news;
  for (const sender of await sendersSinceJoin(tx, roomId)) {
    const entry = unknown.get(sender);
    if (entry !== undefined) news.set(...entry);
  }
  return news;
}

function userOf(key: StateKey): UserId | undefined {
  const [type, stateKey] = splitStateKey(key);
  return type === "m.room.member" ? (stateKey as UserId) : undefined;
}
