import type { ServerName } from "../../matrix/identifiers.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { partialRoom, partialRoomServers } from "../../storage/partial-state.ts";
import { loadResyncControl } from "../../storage/resync-control.ts";
import type { RoomsContext } from "../context.ts";
import type { ResyncTarget } from "./resync-next-step.ts";

/** Of one list; the workflow carries it, and asks for another from time to time. */
const MOST = 100;

/**
 * Servers to ask for the room's state: an operator's choice, the one that we joined by, which knows the join, then
 * those known to be in the room. Of very many, a sample, another one each time.
 */
export async function serversForResync(
  ctx: RoomsContext,
  { roomId }: Pick<ResyncTarget, "roomId">,
): Promise<readonly ServerName[]> {
  const { pool } = ctx.database;
  const control = await loadResyncControl(ctx.database, roomId);
  const room = await partialRoom(pool, roomId);
  const servers = new Set<ServerName>();
  if (control?.wish === "prefer-server") servers.add(control.serverName);
  if (typeof room?.joinedVia === "string") servers.add(room.joinedVia);
  const inRoom = new Set([...(await joinedServers(pool, roomId)), ...(await partialRoomServers(pool, roomId))]);
  for (const server of inRoom.size > MOST ? shuffled([...inRoom]) : inRoom) servers.add(server);
  servers.delete(ctx.serverName);
  return [...servers].slice(0, MOST);
}

export function shuffled<T>(items: readonly T[]): readonly T[] {
  return items
    .map((item) => ({ item, order: Math.random() }))
    .toSorted((a, b) => a.order - b.order)
    .map(({ item }) => item);
}
