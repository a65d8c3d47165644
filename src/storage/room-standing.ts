import type { RoomId, ServerName } from "../matrix/identifiers.ts";
import type { RoomVersion } from "../matrix/room-versions.ts";
import { queryRows, type Connection } from "./query.ts";

/** Where we stand in a room, at one moment. */
export interface RoomStanding {
  readonly roomId: RoomId;
  /** Null for a room that we don't know. */
  readonly roomVersion: RoomVersion | null;
  readonly currentSnapshotId: bigint | null;
  /** One of our users is joined by the current state. */
  readonly weAreIn: boolean;
  /** One of our users is about to join. */
  readonly joining: boolean;
}

/** In one statement: a join that ends leaves no moment in which we are neither joining nor in the room. */
export async function standingInRooms(
  c: Connection,
  roomIds: readonly RoomId[],
  serverName: ServerName,
): Promise<readonly RoomStanding[]> {
  return queryRows<RoomStanding & { roomId: RoomId }>(
    c,
    `SELECT wanted.id AS "roomId", rooms.room_version AS "roomVersion", rooms.current_snapshot_id AS "currentSnapshotId",
       EXISTS (SELECT 1 FROM current_memberships member
         WHERE member.room_id = wanted.id AND member.server_name = $2 AND member.membership = 'join') AS "weAreIn",
       EXISTS (SELECT 1 FROM joins_under_way joining WHERE joining.room_id = wanted.id) AS joining
     FROM unnest($1::text[]) AS wanted (id) LEFT JOIN rooms ON rooms.room_id = wanted.id`,
    [roomIds, serverName],
  );
}
