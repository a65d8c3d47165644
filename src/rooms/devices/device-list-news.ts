import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import {
  changedDeviceLists,
  joinedMembersOf,
  membershipTurns,
  usersSharingRoomsWith,
} from "../../storage/device-list-changes.ts";
import { localMembershipsAt, unPartialStatedRooms, type StreamRange } from "../../storage/streams.ts";
import type { DevicesContext } from "./announce-device-changes.ts";

interface DeviceListNews {
  /** Whose keys the client must ask for again. */
  readonly changed: readonly UserId[];
  /** Who shares no room with the user any more. */
  readonly left: readonly UserId[];
}

/**
 * Whose device lists a client has to look at anew after a stretch of the stream: those that changed, of users who share
 * a room with its user; those of users who share one only now; and those of users who share none any more. When a
 * resync ends, all members of the room count as newly met.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
 */
export async function deviceListNews(ctx: DevicesContext, userId: UserId, range: StreamRange): Promise<DeviceListNews> {
  if (range.from >= range.to) return { changed: [], left: [] };
  const { pool } = ctx.database;
  const rooms = await roomsOf(ctx, userId, range);
  const turns = await membershipTurns(pool, rooms.kept, range);
  const met = [
    ...turns.filter(({ before, after }) => after === "join" && before !== "join").map((turn) => turn.userId),
    ...(await joinedMembersOf(pool, rooms.entered)),
  ];
  const parted = [
    ...turns.filter(({ before, after }) => after !== "join" && isDeparture(before, after)).map((turn) => turn.userId),
    ...(await joinedMembersOf(pool, rooms.left)),
  ];
  const sharing = await usersSharingRoomsWith(pool, userId, [...met, ...parted]);
  const changed = await changedDeviceLists(pool, userId, range);
  return {
    changed: [...new Set([...changed, ...met.filter((one) => sharing.has(one))])].toSorted(),
    left: [...new Set(parted)].filter((one) => one !== userId && !sharing.has(one)).toSorted(),
  };
}

/** In a partial room a member's join may be unknown to us, and their leave known. */
function isDeparture(before: string | null, after: string | null): boolean {
  return before === "join" || (before === null && (after === "leave" || after === "ban"));
}

interface RoomsInRange {
  readonly entered: readonly RoomId[];
  readonly kept: readonly RoomId[];
  readonly left: readonly RoomId[];
}

async function roomsOf(
  { database: { pool } }: DevicesContext,
  userId: UserId,
  range: StreamRange,
): Promise<RoomsInRange> {
  const joinedAt = async (position: bigint): Promise<ReadonlySet<RoomId>> => {
    const standings = await localMembershipsAt(pool, userId, position);
    return new Set(standings.filter(({ membership }) => membership === "join").map(({ roomId }) => roomId));
  };
  const [before, now] = [await joinedAt(range.from), await joinedAt(range.to)];
  const completed = new Set((await unPartialStatedRooms(pool, range)).map(({ roomId }) => roomId));
  const isEntered = (roomId: RoomId): boolean => !before.has(roomId) || completed.has(roomId);
  return {
    entered: [...now].filter(isEntered),
    kept: [...now].filter((roomId) => before.has(roomId)),
    left: [...before].filter((roomId) => !now.has(roomId)),
  };
}
