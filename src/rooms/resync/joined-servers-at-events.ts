import { serverNameOf, type EventId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { splitStateKey, stateDiff, stateGetByKey } from "../../matrix/state.ts";
import type { StoredEvent } from "../../storage/events.ts";
import { loadMemberships } from "../../storage/member-events.ts";
import { loadState, snapshotMembers } from "../../storage/state-snapshots.ts";
import type { StateSource } from "../events/state-before-event.ts";

/** Whether a server had a joined member in the state before an event. */
export type IsJoined = (server: ServerName) => boolean;

/** Goes from event to event and tells which servers were joined in the full state before each. */
export interface JoinedServersWalk {
  /** @returns what holds until the next step */
  stepTo(event: StoredEvent): Promise<IsJoined>;
}

/** All members are read once, at the first event; from there on only what differs from one state to the next. */
export function walkJoinedServers(source: StateSource): JoinedServersWalk {
  const joined = new Map<ServerName, number>();
  let at: bigint | undefined;
  return {
    async stepTo({ eventId, stateBefore }) {
      if (stateBefore === null) throw new Error(`the state before ${eventId} is not known`);
      if (at === undefined) await countAll(source, stateBefore, joined);
      else if (at !== stateBefore) await countChanges(source, { from: at, to: stateBefore }, joined);
      at = stateBefore;
      return (server) => (joined.get(server) ?? 0) > 0;
    },
  };
}

function count(joined: Map<ServerName, number>, userId: UserId, change: 1 | -1): void {
  const server = serverNameOf(userId) ?? "";
  joined.set(server, (joined.get(server) ?? 0) + change);
}

async function countAll({ tx }: StateSource, snapshotId: bigint, joined: Map<ServerName, number>): Promise<void> {
  for (const { userId, membership } of await snapshotMembers(tx, snapshotId)) {
    if (membership === "join") count(joined, userId, 1);
  }
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
