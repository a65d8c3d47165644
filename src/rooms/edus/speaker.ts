import { serverNameOf, type RoomId, type ServerName, type UserId } from "../../matrix/identifiers.ts";
import { isServerJoined, membershipOf } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import type { RoomsContext } from "../context.ts";
import { isServerAllowed } from "../events/server-acl.ts";
import { EduUnusable } from "../edu-unusable.ts";

/**
 * Checks that a server may take part in a room of ours by EDUs.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#server-access-control-lists-acls
 * @throws EduUnusable
 */
export async function checkServerInRoom(ctx: RoomsContext, roomId: RoomId, origin: ServerName): Promise<void> {
  if (!(await isServerJoined(ctx.database.pool, roomId, ctx.serverName))) {
    throw new EduUnusable(`this server is not in ${roomId}`);
  }
  if (!(await isServerAllowed(ctx, roomId, origin))) {
    throw new EduUnusable(`the server is banned from ${roomId} by its ACL`);
  }
}

/** A user's standing as far as we know it: in a partial room we lack most memberships, and believe who speaks. */
export type Standing = "joined" | "believed" | "outside";

/** Of a user of the server that speaks for them, in a room that we are in. */
export async function standingOf(
  ctx: RoomsContext,
  speaker: { readonly roomId: RoomId; readonly userId: UserId; readonly origin: ServerName },
): Promise<Standing> {
  const { roomId, userId, origin } = speaker;
  if (serverNameOf(userId) !== origin) return "outside";
  const { pool } = ctx.database;
  // In this order: a room that becomes whole in between then has the membership.
  const isPartial = (await partialRoom(pool, roomId)) !== undefined;
  const member = await membershipOf(pool, roomId, userId);
  if (member !== undefined) return member.membership === "join" ? "joined" : "outside";
  return isPartial ? "believed" : "outside";
}
