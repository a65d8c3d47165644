import { serverNameOf, type EventId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateDiff, stateGetByKey } from "../../matrix/state.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadMemberships } from "../../storage/member-events.ts";
import { countJoinedByServer } from "../../storage/memberships.ts";
import { loadState } from "../../storage/state-snapshots.ts";
import type { StateSource } from "../events/state-before-event.ts";

/** Whether a server had a joined member in the state before an event. */
export type IsJoined = (server: ServerName) => boolean;

/** Goes from event to event and tells which servers were joined in the full state before each. */
export interface JoinedServersWalk {
  /** @returns what holds until the next step */
  stepTo(event: StoredEvent): Promise<IsJoined>;
}

/** Begins with the members of the current state, which are counted once; from there on only what differs counts. */
export function walkJoinedServers(source: StateSource, currentSnapshotId: bigint): JoinedServersWalk {
  let joined: Map<ServerName, number> | undefined;
  let at = currentSnapshotId;
  return {
    async stepTo({ eventId, stateBefore }) {
      if (stateBefore === null) throw new Error(`the state before ${eventId} is not known`);
      const counts = joined ?? (await countJoinedByServer(source.tx, source.roomId));
      joined = counts;
      if (at !== stateBefore) await countChanges(source, { from: at, to: stateBefore }, counts);
      at = stateBefore;
      return (server) => (counts.get(server) ?? 0) > 0;
    },
  };
}

function count(joined: Map<ServerName, number>, userId: UserId, change: 1 | -1): void {
  const server = serverNameOf(userId) ?? "";
  joined.set(server, (joined.get(server) ?? 0) + change);
}

async function countChanges(
  { database, tx }: StateSource,
  move: { readonly from: bigint; readonly to: bigint },
  joined: Map<ServerName, number>,
): Promise<void> {
  const before = await loadState(database, move.from, tx);
  const after = await loadState(database, move.to, tx);
  const changed = [...stateDiff(before, after)].flatMap(([key, to]) => {
    const [type, stateKey] = splitStateKey(key);
    return type === "m.room.member" ? [{ userId: stateKey as UserId, from: stateGetByKey(before, key), to }] : [];
  });
  const ids = changed.flatMap(({ from, to }) => [from, to]).filter((id): id is EventId => typeof id === "string");
  const memberships = await loadMemberships(tx, ids);
  const isJoin = (id: EventId | null | undefined): boolean => id != null && memberships.get(id) === "join";
  for (const { userId, from, to } of changed) {
    if (isJoin(from)) count(joined, userId, -1);
    if (isJoin(to)) count(joined, userId, 1);
  }
}
