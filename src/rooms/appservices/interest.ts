import type { ApplicationService } from "../../appservice-client/registration.ts";
import { isUserId } from "../../matrix/identifiers.ts";
import type { RoomId } from "../../matrix/identifiers.ts";
import {
  aliasesOfRooms,
  localMembershipsThrough,
  type LocalMembershipAt,
  type PushItem,
} from "../../storage/appservice-items.ts";
import type { StreamRange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { holdsAlias, holdsRoom, isUserOf } from "./namespaces.ts";

/** How many users of a service are in a room, from a position on; oldest first. */
type Attendance = { readonly from: bigint; readonly users: number }[];

/**
 * Which of the items a service is interested in: those of a user of its namespace, and all of a room that is in its
 * namespaces, by its id or an alias, or in which such a user is joined or invited. Who was in a room is asked of the
 * time of the event, so that a service which was down misses nothing of a room that its users have left since; aliases
 * are those of now.
 *
 * @param range holds the items
 * @see https://spec.matrix.org/v1.19/application-service-api/#registration
 */
export async function interestingItems(
  ctx: RoomsContext,
  service: ApplicationService,
  items: readonly PushItem[],
  range: StreamRange,
): Promise<ReadonlySet<PushItem>> {
  if (items.length === 0) return new Set();
  const { pool } = ctx.database;
  const roomIds = [...new Set(items.map(({ roomId }) => roomId))];
  const aliases = service.namespaces.aliases.length > 0 ? await aliasesOfRooms(pool, roomIds) : new Map();
  const rooms = new Set(
    roomIds.filter((roomId) => {
      const known: readonly `#${string}`[] = aliases.get(roomId) ?? [];
      return holdsRoom(service, roomId) || known.some((alias) => holdsAlias(service, alias));
    }),
  );
  const attendance = attendanceOf(ctx, service, await localMembershipsThrough(pool, roomIds, range));
  return new Set(
    items.filter(
      ({ roomId, sender, target, streamId }) =>
        rooms.has(roomId) ||
        isUserOf(service, sender, ctx.serverName) ||
        (isUserId(target) && isUserOf(service, target, ctx.serverName)) ||
        // Whoever leaves by this very event was there.
        usersAt(attendance.get(roomId), streamId - 1n) > 0 ||
        usersAt(attendance.get(roomId), streamId) > 0,
    ),
  );
}

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
