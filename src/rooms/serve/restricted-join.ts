import { MatrixError } from "../../federation-api/matrix-error.ts";
import { powerLevelOf, requiredLevel } from "../../matrix/authorization/levels.ts";
import type { AuthState } from "../../matrix/authorization/verdict.ts";
import { isRoomId } from "../../matrix/identifiers.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import { isJsonArray, isJsonObject } from "../../matrix/json.ts";
import type { JsonValue } from "../../matrix/json.ts";
import type { RoomVersionRules } from "../../matrix/room-versions.ts";
import { stateKeyOf } from "../../matrix/state.ts";
import type { StateKey } from "../../matrix/state.ts";
import { loadEvents, type StoredEvent } from "../../storage/events.ts";
import { localJoinedUsers, membershipOf } from "../../storage/memberships.ts";
import { partialRoom } from "../../storage/partial-state.ts";
import { lookUpManyInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import { weAreInRoom, type ServedRoom } from "./served-room.ts";

/**
 * Which of our users may vouch for a user's join of a restricted room; undefined where nobody need: the room is not
 * restricted, or the user is in it or invited.
 *
 * @throws MatrixError 403 M_FORBIDDEN: the user is in none of the rooms that would let them in;
 *   400 M_UNABLE_TO_AUTHORISE_JOIN: we are not in all of those rooms, so that another server may know better;
 *   400 M_UNABLE_TO_GRANT_JOIN: they may come in, but none of our users may invite
 * @see https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms
 */
export async function authorisingUserFor(
  ctx: RoomsContext,
  room: ServedRoom,
  userId: UserId,
): Promise<UserId | undefined> {
  const state = await authStateOf(ctx, room, userId);
  const joinRules = state("m.room.join_rules", "");
  if (!isRestricted(joinRules?.pdu.content["join_rule"], room.rules)) return undefined;
  const membership = state("m.room.member", userId)?.pdu.content["membership"];
  // Of a ban the auth rules tell.
  if (membership === "join" || membership === "invite" || membership === "ban") return undefined;
  await requireAllowedRoom(ctx, allowedRooms(joinRules?.pdu.content["allow"]), userId);
  const needed = requiredLevel("invite", state, room.rules);
  const ours = await localJoinedUsers(ctx.database.pool, room.roomId, ctx.serverName);
  const authorising = ours.find((user) => powerLevelOf(user, state, room.rules) >= needed);
  if (authorising === undefined) {
    throw new MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "No user of this server may invite into the room");
  }
  return authorising;
}

function isRestricted(joinRule: JsonValue | undefined, rules: RoomVersionRules): boolean {
  if (joinRule === "restricted") return rules.restrictedJoins;
  return joinRule === "knock_restricted" && rules.knockRestricted;
}

async function authStateOf(ctx: RoomsContext, room: ServedRoom, userId: UserId): Promise<AuthState> {
  const { pool } = ctx.database;
  const ids = await lookUpManyInSnapshot(pool, room.snapshotId, [
    ["m.room.create", ""],
    ["m.room.power_levels", ""],
    ["m.room.join_rules", ""],
    ["m.room.member", userId],
  ]);
  const events = await loadEvents(pool, [...ids.values()]);
  const byKey = new Map<StateKey, StoredEvent | undefined>();
  for (const [key, id] of ids) byKey.set(key, events.get(id));
  return (type, stateKey) => byKey.get(stateKeyOf(type, stateKey));
}

function allowedRooms(allow: JsonValue | undefined): readonly RoomId[] {
  if (!isJsonArray(allow)) return [];
  return allow.flatMap((rule) => {
    if (!isJsonObject(rule) || rule["type"] !== "m.room_membership") return [];
    return isRoomId(rule["room_id"]) ? [rule["room_id"]] : [];
  });
}

async function requireAllowedRoom(ctx: RoomsContext, rooms: readonly RoomId[], userId: UserId): Promise<void> {
  const { pool } = ctx.database;
  let unknown = false;
  for (const roomId of rooms) {
    if ((await weAreInRoom(ctx, roomId)) && (await membershipOf(pool, roomId, userId))?.membership === "join") return;
    unknown ||= !(await weAreInRoom(ctx, roomId)) || (await partialRoom(pool, roomId)) !== undefined;
  }
  if (unknown) {
    const message = "This server is not in all of the rooms whose members may join";
    throw new MatrixError(400, "M_UNABLE_TO_AUTHORISE_JOIN", message);
  }
  throw new MatrixError(403, "M_FORBIDDEN", `${userId} is in none of the rooms whose members may join`);
}
