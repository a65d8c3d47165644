import type { UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { splitStateKey, stateKeyOf } from "../../matrix/state.ts";
import type { Member } from "../../storage/memberships.ts";
import { heroesOf, memberCounts, MOST_HEROES } from "../../storage/room-summary.ts";
import { lookUpManyInSnapshot, snapshotMembers } from "../../storage/state-snapshots.ts";
import { currentStateDelta } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import type { RoomRange } from "./sync-joined-room.ts";
import type { SyncRequest } from "./sync.ts";

interface RoomSummary extends JsonObject {
  readonly "m.heroes"?: readonly UserId[];
  readonly "m.joined_member_count"?: number;
  readonly "m.invited_member_count"?: number;
}

type Heroes = readonly UserId[];

/**
 * How many are in the room, and after whom it is called where it has no name: for lazy-loading clients, when it may
 * have changed. While the state is partial nobody can count.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
 */
export async function roomSummary(
  ctx: RoomsContext,
  request: SyncRequest,
  room: RoomRange,
  isPartial: boolean,
): Promise<RoomSummary | undefined> {
  const lazy = request.filter.room?.state?.lazy_load_members === true;
  if (!lazy || !(await mayHaveChanged(ctx, request, room))) {
    return undefined;
  }
  const { pool } = ctx.database;
  const named = await lookUpManyInSnapshot(pool, room.snapshotId, [
    ["m.room.name", ""],
    ["m.room.canonical_alias", ""],
  ]);
  const viewer = request.requester.userId;
  const heroes = named.size > 0 ? [] : await (isPartial ? heroesOfPartialRoom : heroesOfRoom)(ctx, room, viewer);
  const counts = isPartial ? undefined : await memberCounts(pool, room.roomId);
  return {
    ...(heroes.length === 0 ? {} : { "m.heroes": heroes }),
    ...(counts === undefined
      ? {}
      : { "m.joined_member_count": counts.joined, "m.invited_member_count": counts.invited }),
  };
}

async function heroesOfRoom({ database }: RoomsContext, { roomId }: RoomRange, viewer: UserId): Promise<Heroes> {
  return await heroesOf(database.pool, roomId, viewer);
}

/** By the state alone: while a resync ends, more members are written than it tells of. */
async function heroesOfPartialRoom({ database }: RoomsContext, room: RoomRange, viewer: UserId): Promise<Heroes> {
  const others = (await snapshotMembers(database.pool, room.snapshotId)).filter(({ userId }) => userId !== viewer);
  const isHere = ({ membership }: Member): boolean => membership === "join" || membership === "invite";
  const sorted = others.toSorted((a, b) => (a.userId < b.userId ? -1 : 1));
  return [...sorted.filter(isHere), ...sorted.filter((member) => !isHere(member))]
    .slice(0, MOST_HEROES)
    .map(({ userId }) => userId);
}

async function mayHaveChanged(ctx: RoomsContext, request: SyncRequest, room: RoomRange): Promise<boolean> {
  if (room.since === undefined || request.fullState || room.isCompleted === true) {
    return true;
  }
  const changes = await currentStateDelta(ctx.database.pool, room.roomId, { from: room.since, to: room.position });
  const naming = new Set([stateKeyOf("m.room.name", ""), stateKeyOf("m.room.canonical_alias", "")]);
  return [...changes.keys()].some((key) => naming.has(key) || splitStateKey(key)[0] === "m.room.member");
}
