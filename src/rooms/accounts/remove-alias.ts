import { MatrixError } from "../../federation-api/matrix-error.ts";
import { powerLevelOf, requiredLevel } from "../../matrix/authorization/levels.ts";
import type { RoomAlias, RoomId, UserId } from "../../matrix/identifiers.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { deleteRoomAlias, resolveRoomAlias } from "../../storage/room-aliases.ts";
import type { RoomsContext } from "../context.ts";
import { createEvent } from "../events/create-event.ts";
import { powerStateOf } from "../read/power-state.ts";
import { canonicalAliasOf, withoutAlias } from "./canonical-alias.ts";
import { unknownAlias } from "./room-directory.ts";

const CANONICAL_ALIAS = { type: "m.room.canonical_alias", state_key: "" } as const;

/**
 * Removes an alias of ours, for whoever made it or may set the room's canonical alias, which no longer names it then.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias
 * @throws MatrixError 403 M_FORBIDDEN, 404 M_NOT_FOUND
 */
export async function removeAlias(
  ctx: RoomsContext,
  { alias, userId }: { readonly alias: RoomAlias; readonly userId: UserId },
): Promise<void> {
  const row = await resolveRoomAlias(ctx.database, alias);
  if (row === undefined) throw unknownAlias(alias);
  if (row.creator !== userId && !(await maySetCanonicalAlias(ctx, row.roomId, userId))) {
    throw new MatrixError(
      403,
      "M_FORBIDDEN",
      "Only who made an alias, or may set the room's main alias, may delete it",
    );
  }
  await deleteRoomAlias(ctx.database, alias);
  await forgetCanonicalAlias(ctx, row.roomId, { alias, userId });
}

async function maySetCanonicalAlias(ctx: RoomsContext, roomId: RoomId, userId: UserId): Promise<boolean> {
  if ((await membershipOf(ctx.database.pool, roomId, userId))?.membership !== "join") return false;
  const power = await powerStateOf(ctx, roomId);
  if (power === undefined) return false;
  const { state, rules } = power;
  return powerLevelOf(userId, state, rules) >= requiredLevel(CANONICAL_ALIAS, state, rules);
}

/** The alias is gone whether the room lets the user say so or not. */
async function forgetCanonicalAlias(
  ctx: RoomsContext,
  roomId: RoomId,
  { alias, userId }: { readonly alias: RoomAlias; readonly userId: UserId },
): Promise<void> {
  const content = withoutAlias(await canonicalAliasOf(ctx, roomId), alias);
  if (content === undefined) return;
  try {
    await createEvent(ctx, { roomId, sender: userId, type: CANONICAL_ALIAS.type, stateKey: "", content });
  } catch (error) {
    if (!(error instanceof MatrixError)) throw error;
    ctx.logger.info({ roomId, alias, reason: error.message }, "the room goes on naming an alias that was deleted");
  }
}
