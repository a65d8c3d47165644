import { MatrixError } from "../../federation-api/matrix-error.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { RoomAlias, RoomId, ServerName, UserId } from "../../matrix/identifiers.ts";
import { joinedServers, membershipOf } from "../../storage/memberships.ts";
import { partialRoomServers } from "../../storage/partial-state.ts";
import { insertAlias, resolveRoomAlias } from "../../storage/room-aliases.ts";
import { askForAlias } from "../appservices/ask-services.ts";
import type { RoomsContext } from "../context.ts";

/** The room behind an alias, with servers that can help to join it. */
interface AliasedRoom {
  readonly roomId: RoomId;
  readonly servers: readonly ServerName[];
}

/**
 * Asks our own directory, or the server of the alias.
 *
 * @throws MatrixError 404 M_NOT_FOUND; FederationFailure
 */
export async function resolveAlias(ctx: RoomsContext, alias: RoomAlias): Promise<AliasedRoom> {
  const server = serverNameOf(alias);
  if (server !== undefined && server !== ctx.serverName) {
    return resolveRemoteAlias(ctx, alias, server);
  }
  const row = await ourAlias(ctx, alias);
  if (row === undefined) {
    throw unknownAlias(alias);
  }
  const servers = await serversOf(ctx, row.roomId);
  return { roomId: row.roomId, servers: [...new Set([ctx.serverName, ...servers])] };
}

/** An alias of this server; an application service may make its room just now. */
export async function ourAlias(ctx: RoomsContext, alias: RoomAlias): ReturnType<typeof resolveRoomAlias> {
  const row = await resolveRoomAlias(ctx.database, alias);
  return row === undefined && (await askForAlias(ctx, alias)) ? resolveRoomAlias(ctx.database, alias) : row;
}

/** Those of a partial room's first join are in it as far as we know. */
async function serversOf(ctx: RoomsContext, roomId: RoomId): Promise<readonly ServerName[]> {
  const { pool } = ctx.database;
  return [...(await joinedServers(pool, roomId)), ...(await partialRoomServers(pool, roomId))];
}

async function resolveRemoteAlias(ctx: RoomsContext, alias: RoomAlias, server: ServerName): Promise<AliasedRoom> {
  try {
    const { room_id: roomId, servers } = await ctx.federation.queryDirectory(server, alias);
    return { roomId, servers: [...new Set([server, ...servers])] };
  } catch (error) {
    if (error instanceof FederationFailure && error.status === 404) {
      throw unknownAlias(alias);
    }
    throw error;
  }
}

export function unknownAlias(alias: RoomAlias): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", `The room alias ${alias} is not known`);
}

/** @throws MatrixError 400 M_INVALID_PARAM, 403 M_FORBIDDEN, 409 M_UNKNOWN where the alias is taken */
export async function createAlias(
  ctx: RoomsContext,
  entry: { readonly alias: RoomAlias; readonly roomId: RoomId; readonly creator: UserId },
): Promise<void> {
  if (serverNameOf(entry.alias) !== ctx.serverName) {
    throw new MatrixError(400, "M_INVALID_PARAM", `${entry.alias} is not an alias of this server`);
  }
  if (/[\s\0]/.test(entry.alias) || entry.alias.startsWith("#:")) {
    throw new MatrixError(400, "M_INVALID_PARAM", `${JSON.stringify(entry.alias)} has no usable localpart`);
  }
  const member = await membershipOf(ctx.database.pool, entry.roomId, entry.creator);
  if (member?.membership !== "join") {
    throw new MatrixError(403, "M_FORBIDDEN", "Only members of a room can give it an alias");
  }
  if (!(await insertAlias(ctx.database.pool, entry))) {
    throw new MatrixError(409, "M_UNKNOWN", `${entry.alias} is taken`);
  }
}
