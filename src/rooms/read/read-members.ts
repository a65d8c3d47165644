import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { joinedRooms } from "../../storage/memberships.ts";
import type { Member } from "../../storage/memberships.ts";
import { snapshotMembers } from "../../storage/state-snapshots.ts";
import { timeline } from "../../storage/timeline.ts";
import type { ClientEvent } from "./client-event.ts";
import { toClientEvents } from "./client-events.ts";
import type { RoomsContext } from "../context.ts";
import { waitForFullState } from "./full-state-wait.ts";
import type { ReadContext } from "./full-state-wait.ts";
import { loadManyEvents } from "../events/load-many-events.ts";
import type { RoomReader } from "./read-state.ts";
import { roomAccess } from "./room-access.ts";
import type { RoomAccess } from "./room-access.ts";

interface MembersWanted extends RoomReader {
  /** A position in the stream: the members as they were then. */
  readonly at?: bigint | undefined;
  readonly membership?: Member["membership"] | undefined;
  readonly notMembership?: Member["membership"] | undefined;
}

export async function joinedRoomsOf(ctx: RoomsContext, userId: UserId): Promise<readonly RoomId[]> {
  return joinedRooms(ctx.database.pool, userId);
}

/**
 * The member events of a room: waits for the full state.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function membersOf(ctx: ReadContext, wanted: MembersWanted): Promise<readonly ClientEvent[]> {
  const access = await fullAccess(ctx, wanted);
  const members = await snapshotMembers(ctx.database.pool, await snapshotAt(ctx, access, wanted.at));
  const ids = members.filter((member) => isWanted(member, wanted)).map(({ eventId }) => eventId);
  return toClientEvents(ctx, await loadManyEvents(ctx.database.pool, ids), { withRoomId: true });
}

/**
 * The joined members with their profiles in the room: waits for the full state.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function joinedMembersOf(ctx: ReadContext, reader: RoomReader): Promise<JsonObject> {
  const access = await fullAccess(ctx, reader);
  const members = await snapshotMembers(ctx.database.pool, access.snapshotId);
  const joined = members.filter(({ membership }) => membership === "join");
  const ids = joined.map(({ eventId }) => eventId);
  const events = await toClientEvents(ctx, await loadManyEvents(ctx.database.pool, ids), { withRoomId: true });
  return Object.fromEntries(events.map((event) => [event.state_key ?? "", profileIn(event.content)]));
}

async function fullAccess(ctx: ReadContext, { roomId, userId, signal }: RoomReader): Promise<RoomAccess> {
  await roomAccess(ctx, roomId, userId);
  await waitForFullState(ctx, roomId, signal);
  // Asked again: the resync has moved the room to another snapshot, or put the user out.
  return roomAccess(ctx, roomId, userId);
}

/** The state after the last event up to the position. */
async function snapshotAt(ctx: RoomsContext, access: RoomAccess, at: bigint | undefined): Promise<bigint> {
  if (at === undefined || (access.leftAt !== undefined && at >= access.leftAt)) {
    return access.snapshotId;
  }
  const range = { from: at, limit: 1, direction: "backward" } as const;
  const [last] = await timeline(ctx.database.pool, access.roomId, range);
  return last?.stateAfter ?? access.snapshotId;
}

function isWanted(member: Member, { membership, notMembership }: MembersWanted): boolean {
  return (
    (membership === undefined || member.membership === membership) &&
    (notMembership === undefined || member.membership !== notMembership)
  );
}

function profileIn(content: JsonObject): JsonObject {
  const displayName = content["displayname"];
  const avatarUrl = content["avatar_url"];
  return {
    ...(typeof displayName === "string" ? { display_name: displayName } : {}),
    ...(typeof avatarUrl === "string" ? { avatar_url: avatarUrl } : {}),
  };
}
