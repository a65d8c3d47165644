import type { ApplicationService } from "../../appservice-client/registration.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import type { RoomAlias, RoomId } from "../../matrix/identifiers.ts";
import {
  aliasesOfRooms,
  localMembershipsThrough,
  type LocalMembershipAt,
  type PushItem,
} from "../../storage/appservice-items.ts";
import type { StreamRange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { holdsAlias, holdsRoom, isUserOf } from "./namespaces.ts";

/** Which rooms a service is interested in at which time. */
export interface RoomInterest {
  /** @param position within the range that was asked for */
  wants(roomId: RoomId, position: bigint): boolean;
}

/**
 * The interest in rooms: in those that are in the service's namespaces, by their id or an alias, and in those in which a
 * user of its namespace is joined or invited. Who was in a room is asked of the time of an event, so that a service
 * which was down misses nothing of a room that its users have left since; aliases are those of now.
 *
 * @see https://spec.matrix.org/v1.19/application-service-api/#registration
 */
export async function roomInterest(
  ctx: RoomsContext,
  service: ApplicationService,
  roomIds: readonly RoomId[],
  range: StreamRange,
): Promise<RoomInterest> {
  if (roomIds.length === 0) return { wants: () => false };
  const { pool } = ctx.database;
  const aliases = service.namespaces.aliases.length > 0 ? await aliasesOfRooms(pool, roomIds) : NO_ALIASES;
  const named = new Set(
    roomIds.filter(
      (roomId) => holdsRoom(service, roomId) || aliases.get(roomId)?.some((alias) => holdsAlias(service, alias)),
    ),
  );
  const attendance = attendanceOf(ctx, service, await localMembershipsThrough(pool, roomIds, range));
  return {
    wants: (roomId, position) =>
      named.has(roomId) ||
      usersAt(attendance.get(roomId), position) > 0 ||
      // Whoever leaves by this very event was there.
      usersAt(attendance.get(roomId), position - 1n) > 0,
  };
}

const NO_ALIASES: ReadonlyMap<RoomId, readonly RoomAlias[]> = new Map();

/** Which of the items a service is interested in: those of such rooms, and of its users. @param range holds the items */
export async function interestingItems(
  ctx: RoomsContext,
  service: ApplicationService,
  items: readonly PushItem[],
  range: StreamRange,
): Promise<ReadonlySet<PushItem>> {
  const interest = await roomInterest(ctx, service, [...new Set(items.map(({ roomId }) => roomId))], range);
  return new Set(
    items.filter(
      ({ roomId, sender, target, streamId }) =>
        isUserOf(service, sender, ctx.serverName) ||
        (isUserId(target) && isUserOf(service, target, ctx.serverName)) ||
        interest.wants(roomId, streamId),
    ),
  );
}

/** How many users of a service are in a room, from a position on; oldest first. */
type Attendance = { readonly from: bigint; readonly users: number }[];

function attendanceOf(
  ctx: RoomsContext,
  service: ApplicationService,
  changes: readonly LocalMembershipAt[],
): ReadonlyMap<RoomId, Attendance> {
  const present = new Map<RoomId, Set<string>>();
  const attendance = new Map<RoomId, Attendance>();
  for (const { roomId, userId, membership, streamId } of changes) {
    if (!isUserOf(service, userId, ctx.serverName)) continue;
    const users = present.get(roomId) ?? new Set();
    if (membership === "join" || membership === "invite") users.add(userId);
    else users.delete(userId);
    present.set(roomId, users);
    const known = attendance.get(roomId) ?? [];
    known.push({ from: streamId, users: users.size });
    attendance.set(roomId, known);
  }
  return attendance;
}

function usersAt(attendance: Attendance | undefined, position: bigint): number {
  return attendance?.findLast(({ from }) => from <= position)?.users ?? 0;
}
