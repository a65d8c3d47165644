import type { LongObject } from "../../federation-api/long-json.ts";
import type { RoomId } from "../../matrix/identifiers.ts";
import { changedRooms } from "../../storage/changed-rooms.ts";
import { forgottenRooms } from "../../storage/forgotten-rooms.ts";
import { listPartialRooms } from "../../storage/partial-state.ts";
import { localMembershipsAt, unPartialStatedRooms } from "../../storage/streams.ts";
import type { LocalMembershipChange } from "../../storage/streams.ts";
import type { RoomsContext } from "../context.ts";
import { passesRoomFilter } from "../read/event-filter.ts";
import { withEphemeral } from "./sync-ephemeral.ts";
import { invitedRoom, knockedRoom } from "./sync-invited-room.ts";
import { joinedRoom } from "./sync-joined-room.ts";
import { leftRoom } from "./sync-left-room.ts";
import type { SyncRequest } from "./sync.ts";

/** The groups of `rooms` in the answer, each by room id. */
export interface RoomsToSync {
  readonly join: LongObject;
  readonly invite: LongObject;
  readonly knock: LongObject;
  readonly leave: LongObject;
}

/** Which rooms' states were partial at the position, and which have become full since the client asked last. */
interface PartialRooms {
  readonly partial: ReadonlySet<RoomId>;
  readonly completed: ReadonlySet<RoomId>;
}

/** Beyond every position. */
const END_OF_STREAM = 2n ** 62n;

/** What a client is to be told of its rooms, from its last position up to this one. */
export async function syncRooms(ctx: RoomsContext, request: SyncRequest, position: bigint): Promise<RoomsToSync> {
  const { userId } = request.requester;
  const { pool } = ctx.database;
  const roomFilter = request.filter.room ?? {};
  const [all, before, partialRooms] = await Promise.all([
    localMembershipsAt(pool, userId, position),
    request.since === undefined ? [] : localMembershipsAt(pool, userId, request.since),
    partialRoomsAt(ctx, request.since ?? position, position),
  ]);
  const now = all.filter(({ roomId }) => passesRoomFilter(roomId, roomFilter));
  const earlier = new Map(before.map((membership) => [membership.roomId, membership]));
  const isNew = (membership: LocalMembershipChange): boolean => membership.streamId > (request.since ?? -1n);
  const of = (...kinds: readonly string[]): readonly LocalMembershipChange[] =>
    now.filter(({ membership }) => kinds.includes(membership));

  const left = await leftToTell(ctx, request, of("leave", "ban"));
  return {
    join: await joinedGroup(ctx, request, { memberships: of("join"), earlier, partialRooms, position }),
    invite: await groupOf(of("invite").filter(isNew), async (one) => invitedRoom(ctx, one)),
    knock: await groupOf(of("knock").filter(isNew), async (one) => knockedRoom(ctx, one)),
    leave: await groupOf(left, async (one) => leftRoom(ctx, request, { left: one, before: earlier.get(one.roomId) })),
  };
}

/** A first sync is told of rooms that were left only if it asks, and of none that the user has forgotten. */
async function leftToTell(
  ctx: RoomsContext,
  { since, filter, requester }: SyncRequest,
  left: readonly LocalMembershipChange[],
): Promise<readonly LocalMembershipChange[]> {
  if (since !== undefined) return left.filter(({ streamId }) => streamId > since);
  if (filter.room?.include_leave !== true) return [];
  const forgotten = await forgottenRooms(ctx.database.pool, requester.userId);
  return left.filter(({ roomId, streamId }) => streamId > (forgotten.get(roomId) ?? -1n));
}

async function partialRoomsAt(ctx: RoomsContext, since: bigint, position: bigint): Promise<PartialRooms> {
  const { pool } = ctx.database;
  const rows = await listPartialRooms(pool);
  // Read after the rows: a room that has lost its row in between is found here, behind the position.
  const completions = await unPartialStatedRooms(pool, { from: since, to: END_OF_STREAM });
  const later = completions.filter(({ streamId }) => streamId > position);
  return {
    partial: new Set([...rows, ...later].map(({ roomId }) => roomId)),
    completed: new Set(completions.filter(({ streamId }) => streamId <= position).map(({ roomId }) => roomId)),
  };
}

interface JoinedRooms {
  readonly memberships: readonly LocalMembershipChange[];
  readonly earlier: ReadonlyMap<RoomId, LocalMembershipChange>;
  readonly partialRooms: PartialRooms;
  readonly position: bigint;
}

async function joinedGroup(ctx: RoomsContext, request: SyncRequest, rooms: JoinedRooms): Promise<LongObject> {
  const { memberships, earlier, partialRooms, position } = rooms;
  const lazy = request.filter.room?.state?.lazy_load_members === true;
  // Without lazy loading a client wants all members, so a partial room is not there for it yet, and once it is
  // complete it is as if it were newly joined.
  const shown = memberships.filter(({ roomId }) => lazy || !partialRooms.partial.has(roomId));
  const isKnown = ({ roomId }: LocalMembershipChange): boolean =>
    earlier.get(roomId)?.membership === "join" && (lazy || !partialRooms.completed.has(roomId));
  const changed =
    request.since === undefined
      ? new Set<RoomId>()
      : await changedRooms(
          ctx.database.pool,
          shown.map(({ roomId }) => roomId),
          { from: request.since, to: position },
        );
  const told = shown.filter((one) => request.fullState || !isKnown(one) || changed.has(one.roomId));
  const sinceOf = (one: LocalMembershipChange): bigint | undefined => (isKnown(one) ? request.since : undefined);
  const group = await groupOf(told, async (one) =>
    joinedRoom(ctx, request, {
      roomId: one.roomId,
      since: sinceOf(one),
      position,
      isPartial: partialRooms.partial.has(one.roomId),
      isCompleted: partialRooms.completed.has(one.roomId),
    }),
  );
  const asked = shown.map((one) => ({ roomId: one.roomId, since: sinceOf(one) }));
  return withEphemeral(ctx, request, { group, rooms: asked, position });
}

/** One room after the other: a sync of many rooms must not take all connections of the pool. */
async function groupOf(
  memberships: readonly LocalMembershipChange[],
  describe: (membership: LocalMembershipChange) => Promise<LongObject | undefined>,
): Promise<LongObject> {
  const group: Record<string, LongObject> = {};
  for (const membership of memberships) {
    const room = await describe(membership);
    if (room !== undefined) {
      group[membership.roomId] = room;
    }
  }
  return group;
}
