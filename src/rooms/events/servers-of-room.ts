import type { RoomId, ServerName } from "../../matrix/identifiers.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { partialRoomServers } from "../../storage/partial-state.ts";
import type { Connection } from "../../storage/query.ts";
import type { RoomsContext } from "../context.ts";

/** The other servers of a room: those of its joined members and, while it is partial, those that the join named. */
export async function serversOfRoom(
  c: Connection,
  ctx: Pick<RoomsContext, "serverName">,
  roomId: RoomId,
): Promise<readonly ServerName[]> {
  const servers = new Set([...(await joinedServers(c, roomId)), ...(await partialRoomServers(c, roomId))]);
  servers.delete(ctx.serverName);
  return [...servers];
}
