import { MatrixError } from "../../federation-api/matrix-error.ts";
import { serverNameOf } from "../../matrix/identifiers.ts";
import type { RoomAlias, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { joinedServers } from "../../storage/memberships.ts";
import { partialRoomServers } from "../../storage/partial-state.ts";
import { ourAlias } from "../accounts/room-directory.ts";
import { ourProfile } from "../accounts/profiles.ts";
import type { RoomsContext } from "../context.ts";

/**
 * The profile of one of our users, or one field of it; what is not set is left out.
 *
 * @throws MatrixError 404 M_NOT_FOUND
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile
 */
export async function serveProfile(ctx: RoomsContext, userId: UserId, field?: string): Promise<JsonObject> {
  const profile = isOurUser(ctx, userId) ? await ourProfile(ctx, userId) : undefined;
  if (profile === undefined) throw notFound(`${userId} is not a user of this server`);
  const fields: Readonly<Record<string, string | null>> = {
    displayname: profile.displayname,
    avatar_url: profile.avatarUrl,
  };
  const shown = Object.entries(fields).filter(([name, value]) => value !== null && (field ?? name) === name);
  return Object.fromEntries(shown);
}

/**
 * The room behind an alias of ours, and servers to join it through: ourselves first.
 *
 * @throws MatrixError 404 M_NOT_FOUND
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory
 */
export async function serveDirectory(ctx: RoomsContext, alias: RoomAlias): Promise<JsonObject> {
  const row = serverNameOf(alias) === ctx.serverName ? await ourAlias(ctx, alias) : undefined;
  if (row === undefined) throw notFound(`${alias} is not known here`);
  const { pool } = ctx.database;
  const servers = new Set([
    ctx.serverName,
    ...(await joinedServers(pool, row.roomId)),
    ...(await partialRoomServers(pool, row.roomId)),
  ]);
  return { room_id: row.roomId, servers: [...servers] };
}

function isOurUser(ctx: RoomsContext, userId: UserId): boolean {
  return serverNameOf(userId) === ctx.serverName;
}

function notFound(message: string): MatrixError {
  return new MatrixError(404, "M_NOT_FOUND", message);
}
