import { isRoomAlias } from "../matrix/identifiers.ts";
import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import { resolveAlias } from "../rooms/accounts/room-directory.ts";
import type { ClientApiContext } from "./context.ts";
import { parseParam, roomAlias, roomId, serverName } from "./request-body.ts";
import { param } from "./route.ts";
import type { ClientRequest } from "./route.ts";

interface RoomToEnter {
  readonly roomId: RoomId;
  /** The client's servers, then those that the alias's directory names. */
  readonly via: readonly ServerName[];
}

/**
 * The room that a path names by `roomIdOrAlias`.
 *
 * @throws MatrixError 400 M_INVALID_PARAM, 404 M_NOT_FOUND; FederationFailure where an alias's server does not answer
 */
export async function roomToEnter(ctx: ClientApiContext, request: ClientRequest): Promise<RoomToEnter> {
  const idOrAlias = param(request, "roomIdOrAlias");
  const via = serversOfQuery(request);
  if (!isRoomAlias(idOrAlias)) return { roomId: parseParam("roomIdOrAlias", idOrAlias, roomId), via };
  const room = await resolveAlias(ctx, parseParam("roomIdOrAlias", idOrAlias, roomAlias));
  return { roomId: room.roomId, via: [...new Set([...via, ...room.servers])] };
}

/** `server_name` is what `via` was called before specification 1.12. */
export function serversOfQuery(request: ClientRequest): readonly ServerName[] {
  const asked = [...request.query.getAll("via"), ...request.query.getAll("server_name")];
  return [...new Set(asked.map((name) => parseParam("via", name, serverName)))];
}
