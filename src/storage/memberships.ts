import { serverNameOf, type EventId, type RoomId, type ServerName, type UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

export type Membership = "ban" | "invite" | "join" | "knock" | "leave";

export interface Member {
  readonly userId: UserId;
  readonly membership: Membership;
  readonly eventId: EventId;
}

/** A member's new standing in the room's current state, or null for one whose member event is gone from it. */
export interface MembershipChange {
  readonly userId: UserId;
  readonly member: { readonly membership: Membership; readonly eventId: EventId } | null;
}

const MEMBER_COLUMNS = `user_id AS "userId", membership, event_id AS "eventId"`;

/** At most one change per user. */
export async function applyMembershipChanges(
  tx: Connection,
  roomId: RoomId,
  changes: readonly MembershipChange[],
): Promise<void> {
  const gone = changes.filter((change) => change.member === null).map((change) => change.userId);
  if (gone.length > 0) {
    await execute(tx, `DELETE FROM current_memberships WHERE room_id = $1 AND user_id = ANY ($2::text[])`, [
      roomId,
      gone,
    ]);
  }
  const present = changes.flatMap(({ userId, member }) => (member === null ? [] : [{ userId, ...member }]));
  if (present.length === 0) return;
  await execute(
    tx,
    `INSERT INTO current_memberships (room_id, user_id, server_name, membership, event_id)
     SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
     ON CONFLICT (room_id, user_id) DO UPDATE SET membership = EXCLUDED.membership, event_id = EXCLUDED.event_id
     WHERE current_memberships.event_id <> EXCLUDED.event_id`,
    [
      roomId,
      present.map((member) => member.userId),
      present.map((member) => serverNameOf(member.userId) ?? ""),
      present.map((member) => member.membership),
      present.map((member) => member.eventId),
    ],
  );
}

/** Our users who are joined by the current state, with their joins. */
export async function localJoinedMembers(
  c: Connection,
  roomId: RoomId,
  serverName: ServerName,
): Promise<readonly { readonly userId: UserId; readonly eventId: EventId }[]> {
  return queryRows<{ userId: UserId; eventId: EventId }>(
    c,
    `SELECT user_id AS "userId", event_id AS "eventId" FROM current_memberships
     WHERE room_id = $1 AND server_name = $2 AND membership = 'join'`,
    [roomId, serverName],
  );
}

/** Servers with a joined member in the current state, in the order of their names. */
export async function joinedServers(c: Connection, roomId: RoomId): Promise<ServerName[]> {
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `SELECT DISTINCT server_name AS name FROM current_memberships WHERE room_id = $1 AND membership = 'join'`,
    [roomId],
  );
  return rows.map((row) => row.name).toSorted();
}

/** Whether the server is one of {@link joinedServers}, without reading them all. */
export async function isServerJoined(c: Connection, roomId: RoomId, serverName: ServerName): Promise<boolean> {
  const row = await queryRow(
    c,
    `SELECT 1 FROM current_memberships WHERE room_id = $1 AND server_name = $2 AND membership = 'join' LIMIT 1`,
    [roomId, serverName],
  );
  return row !== undefined;
}

/** Rooms in whose current state the user is joined, in the order of their ids. */
export async function joinedRooms(c: Connection, userId: UserId): Promise<RoomId[]> {
  const rows = await queryRows<{ id: RoomId }>(
    c,
    `SELECT room_id AS id FROM current_memberships WHERE user_id = $1 AND membership = 'join'`,
    [userId],
  );
  return rows.map((row) => row.id).toSorted();
}

export async function membershipOf(c: Connection, roomId: RoomId, userId: UserId): Promise<Member | undefined> {
  return queryRow<Member>(c, `SELECT ${MEMBER_COLUMNS} FROM current_memberships WHERE room_id = $1 AND user_id = $2`, [
    roomId,
    userId,
  ]);
}

/** All members of the current state, left and banned ones included. */
export async function members(c: Connection, roomId: RoomId): Promise<Member[]> {
  return queryRows<Member>(
    c,
    `SELECT ${MEMBER_COLUMNS} FROM current_memberships WHERE room_id = $1 ORDER BY user_id COLLATE "C"`,
    [roomId],
  );
}

export async function localJoinedUsers(c: Connection, roomId: RoomId, serverName: ServerName): Promise<UserId[]> {
  const members = await localJoinedMembers(c, roomId, serverName);
  return members.map(({ userId }) => userId).toSorted();
}
