import { MatrixError } from "../../federation-api/matrix-error.ts";
import { FederationFailure } from "../../federation-client/failures.ts";
import { isRoomAlias, type RoomAlias, type RoomId } from "../../matrix/identifiers.ts";
import { isJsonArray, type JsonObject, type JsonValue } from "../../matrix/json.ts";
import { loadEvent } from "../../storage/events.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { resolveAlias } from "./room-directory.ts";

/**
 * Checks that each alias which a new `m.room.canonical_alias` adds is one, and names the room. Those that stood there
 * before are let be, whatever has become of them.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias
 * @throws MatrixError 400 M_INVALID_PARAM for what is no alias, 400 M_BAD_ALIAS for one that names another room or none
 */
export async function checkCanonicalAlias(ctx: RoomsContext, roomId: RoomId, content: JsonObject): Promise<void> {
  const known = new Set<JsonValue>(aliasValues(await canonicalAliasOf(ctx, roomId)));
  for (const value of aliasValues(content)) {
    if (known.has(value)) continue;
    if (!isRoomAlias(value)) {
      throw new MatrixError(400, "M_INVALID_PARAM", `${JSON.stringify(value)} is not a room alias`);
    }
    await requireAliasOf(ctx, roomId, value);
  }
}

/** The content of the room's canonical alias event. */
export async function canonicalAliasOf(ctx: RoomsContext, roomId: RoomId): Promise<JsonObject> {
  const { pool } = ctx.database;
  const snapshotId = (await loadRoom(pool, roomId))?.currentSnapshotId ?? null;
  const id = snapshotId === null ? undefined : await lookUpInSnapshot(pool, snapshotId, "m.room.canonical_alias", "");
  return (id === undefined ? undefined : await loadEvent(pool, id))?.pdu.content ?? {};
}

/** What the content holds without an alias; undefined where it did not name it. */
export function withoutAlias(content: JsonObject, alias: RoomAlias): JsonObject | undefined {
  const { alias: main, alt_aliases: others, ...rest } = content;
  if (!aliasValues(content).includes(alias)) return undefined;
  const kept = (isJsonArray(others) ? others : []).filter((other) => other !== alias);
  return {
    ...rest,
    ...(main === undefined || main === alias ? {} : { alias: main }),
    ...(kept.length === 0 ? {} : { alt_aliases: kept }),
  };
}

/** An empty or absent `alias` says that there is none. */
function aliasValues({ alias, alt_aliases: others }: JsonObject): readonly JsonValue[] {
  const main = alias === undefined || alias === null || alias === "" ? [] : [alias];
  if (others === undefined || others === null) return main;
  return isJsonArray(others) ? [...main, ...others] : [...main, others];
}

async function requireAliasOf(ctx: RoomsContext, roomId: RoomId, alias: RoomAlias): Promise<void> {
  const found = await roomBehind(ctx, alias);
  if (found === roomId) return;
  const what = found === undefined ? "is not known" : `is an alias of ${found}`;
  throw new MatrixError(400, "M_BAD_ALIAS", `${alias} ${what}`);
}

async function roomBehind(ctx: RoomsContext, alias: RoomAlias): Promise<RoomId | undefined> {
  try {
    return (await resolveAlias(ctx, alias)).roomId;
  } catch (error) {
    if (error instanceof FederationFailure || (error instanceof MatrixError && error.status === 404)) return undefined;
    throw error;
  }
}
