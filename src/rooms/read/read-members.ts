import { longMembers, memberText, type TextBatches } from "../../federation-api/long-json.ts";
import type { RoomId, UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { joinedRooms } from "../../storage/memberships.ts";
import type { Member } from "../../storage/memberships.ts";
import { snapshotMemberIds } from "../../storage/state-snapshots.ts";
import { timeline } from "../../storage/timeline.ts";
import type { ClientEvent } from "./client-event.ts";
import { clientEventBatches, jsonTexts } from "./client-event-batches.ts";
import type { RoomsContext } from "../context.ts";
import { waitForFullState } from "./full-state-wait.ts";
import type { ReadContext } from "./full-state-wait.ts";
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
 * The member events of a room: waits for the full state. Which ones is settled then; they are read as somebody asks for
 * them.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function membersOf(ctx: ReadContext, wanted: MembersWanted): Promise<TextBatches> {
  const access = await fullAccess(ctx, wanted);
  const ids = await snapshotMemberIds(ctx.database.pool, await snapshotAt(ctx, access, wanted.at), wanted);
  return jsonTexts(clientEventBatches(ctx, { roomId: wanted.roomId, ids, withRoomId: true }));
}

/**
 * The joined members with their profiles in the room, read as {@link membersOf} does: waits for the full state.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
 * @throws FullStateMissing; MatrixError 403 M_FORBIDDEN
 */
export async function joinedMembersOf(ctx: ReadContext, reader: RoomReader): Promise<TextBatches> {
  const access = await fullAccess(ctx, reader);
  const ids = await snapshotMemberIds(ctx.database.pool, access.snapshotId, { membership: "join" });
  return longMembers(profilesOf(clientEventBatches(ctx, { roomId: reader.roomId, ids, withRoomId: true })));
}

async function* profilesOf(batches: AsyncIterable<readonly ClientEvent[]>): AsyncGenerator<readonly string[]> {
  for await (const batch of batches) {
    yield batch.map((event) => memberText(event.state_key ?? "", profileIn(event.content)));
  }
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

function profileIn(content: JsonObject): JsonObject {
  const displayName = content["displayname"];
  const avatarUrl = content["avatar_url"];
  return {
    ...(typeof displayName === "string" ? { display_name: displayName } : {}),
    ...(typeof avatarUrl === "string" ? { avatar_url: avatarUrl } : {}),
  };
}
