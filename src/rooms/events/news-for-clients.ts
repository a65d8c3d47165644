import { serverNameOf, type EventId, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateGetByKey, stateKeyOf, type StateKey } from "../../matrix/state.ts";
import { sendersSinceJoin } from "../../storage/room-graph.ts";
import type { RoomsContext } from "../context.ts";
import { ENTRIES_BETWEEN_PAUSES, withPauses } from "../with-pauses.ts";
import type { StateSource } from "./state-before-event.ts";
import type { CurrentStateChange } from "./update-current-state.ts";

/** A change from partial state. */
type Change = Pick<CurrentStateChange, "previous" | "changes">;

/** Its two parts. */
export interface SeparatedChange {
  /** Members of whom the state before knew nothing, all of them of other servers. */
  readonly unknown: ReadonlyMap<UserId, EventId>;
  readonly others: ReadonlyMap<StateKey, EventId | null>;
}

/** Tells the thousands of members that were merely unknown from what has changed. */
export async function separateUnknown(
  { serverName }: Pick<RoomsContext, "serverName">,
  change: Change,
): Promise<SeparatedChange> {
  return await withPauses(separation(serverName, change));
}

function* separation(ourServer: string, { previous, changes }: Change): Generator<void, SeparatedChange> {
  const unknown = new Map<UserId, EventId>();
  const others = new Map<StateKey, EventId | null>();
  let looked = 0;
  for (const [key, eventId] of changes) {
    const userId = eventId === null || stateGetByKey(previous, key) !== undefined ? undefined : userOf(key);
    if (eventId !== null && userId !== undefined && serverNameOf(userId) !== ourServer) unknown.set(userId, eventId);
    else others.set(key, eventId);
    if ((looked += 1) % ENTRIES_BETWEEN_PAUSES === 0) yield;
  }
  return { unknown, others };
}

/**
 * Of a change from partial state what clients are told: what they may have seen otherwise. The thousands of memberships
 * that were merely unknown until now are no news: a lazy-loading client asks for those it needs, another one first sees
 * the room when it is whole. But of who has sent something a lazy-loading client was told a membership, by the auth
 * events of what they sent, which may have been an old one.
 */
export async function newsForClients(
  { tx, roomId }: Pick<StateSource, "tx" | "roomId">,
  { unknown, others }: SeparatedChange,
): Promise<ReadonlyMap<StateKey, EventId | null>> {
  if (unknown.size === 0) return others;
  const news = new Map(others);
  for (const sender of await sendersSinceJoin(tx, roomId)) {
    const eventId = unknown.get(sender);
    if (eventId !== undefined) news.set(stateKeyOf("m.room.member", sender), eventId);
  }
  return news;
}

function userOf(key: StateKey): UserId | undefined {
  const [type, stateKey] = splitStateKey(key);
  return type === "m.room.member" ? (stateKey as UserId) : undefined;
}
