import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { RoomAlias } from "../../matrix/identifiers.ts";
import { loadEvent } from "../../storage/events.ts";
import { membershipOf } from "../../storage/memberships.ts";
import { aliasesOfRoom } from "../../storage/room-aliases.ts";
import { loadRoom } from "../../storage/rooms.ts";
import { lookUpInSnapshot } from "../../storage/state-snapshots.ts";
import type { RoomsContext } from "../context.ts";
import type { RoomReader } from "./read-state.ts";

/**
 * The aliases that our own directory holds of a room, for its members, and for anyone where the world may read it.
 *
 * @see https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases
 * @throws MatrixError 403 M_FORBIDDEN
 */
export async function readAliases(ctx: RoomsContext, { roomId, userId }: RoomReader): Promise<readonly RoomAlias[]> {
  const { pool } = ctx.database;
  const member = await membershipOf(pool, roomId, userId);
  if (member?.membership !== "join" && !(await isWorldReadable(ctx, roomId))) {
    throw new MatrixError(403, "M_FORBIDDEN", `You are not in the room ${roomId}`);
  }
  return await aliasesOfRoom(pool, roomId);
}

async function isWorldReadable(ctx: RoomsContext, roomId: RoomReader["roomId"]): Promise<boolean> {
  const { pool } = ctx.database;
  const snapshotId = (await loadRoom(pool, roomId))?.currentSnapshotId ?? null;
  if (snapshotId === null) return false;
  const id = await lookUpInSnapshot(pool, snapshotId, "m.room.history_visibility", "");
  const event = id === undefined ? undefined : await loadEvent(pool, id);
  return event?.pdu.content["history_visibility"] === "world_readable";
}
