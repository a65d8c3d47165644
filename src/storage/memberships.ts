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
  const sorted = inOrder(present);
  await execute(
    tx,
    `INSERT INTO current_memberships (room_id, user_id, server_name, membership, event_id)
     SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[])
     ON CONFLICT (room_id, user_id)
     DO UPDATE SET membership = EXCLUDED.membership, event_id = EXCLUDED.event_id
     WHERE current_memberships.event_id <> EXCLUDED.event_id`,
    [
      roomId,
      sorted.map((member) => member.userId),
      sorted.map((member) => serverNameOf(member.userId) ?? ""),
      sorted.map((member) => member.membership),
      sorted.map((member) => member.eventId),
    ],
  );
}

/** Who writes the same members at the same time waits for us, or we for them; in one order, never both. */
function inOrder<One extends Pick<Member, "userId">>(members: readonly One[]): readonly One[] {
  return members.toSorted((a, b) => (a.userId < b.userId ? -1 : 1));
}

/**
 * Writes members of whom nothing is known yet, with what their member events, which are stored, make them; others stay
 * as they are.
 *
 * @returns those who stand there now by the events that are given
 */
export async function addUnknownMembers(
  tx: Connection,
  roomId: RoomId,
  given: readonly Pick<Member, "userId" | "eventId">[],
): Promise<readonly UserId[]> {
  const sorted = inOrder(given);
  const userIds = sorted.map((member) => member.userId);
  const eventIds = sorted.map((member) => member.eventId);
  const servers = sorted.map((member) => serverNameOf(member.userId) ?? "");
  const written = await execute(
    tx,
    `INSERT INTO current_memberships (room_id, user_id, server_name, membership, event_id)
     SELECT $1, given.user_id, given.server_name, events.membership, given.event_id
     FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS given (user_id, server_name, event_id, place)
     JOIN events ON events.event_id = given.event_id AND events.membership IS NOT NULL
     ORDER BY given.place ON CONFLICT (room_id, user_id) DO NOTHING`,
    [roomId, userIds, servers, eventIds],
  );
  if (written === given.length) return given.map((member) => member.userId);
  const rows = await queryRows<{ userId: UserId }>(
    tx,
    `SELECT user_id AS "userId" FROM current_memberships
     JOIN unnest($2::text[], $3::text[]) AS given (user_id, event_id) USING (user_id, event_id) WHERE room_id = $1`,
    [roomId, userIds, eventIds],
  );
  return rows.map((row) => row.userId);
}

/** Takes away all members whom the room's current state does not have. */
export async function keepMembersOfCurrentState(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(
    tx,
    `WITH RECURSIVE chain (snapshot_id) AS (
       SELECT current_snapshot_id FROM rooms WHERE room_id = $1
       UNION ALL
       SELECT parent_id FROM state_snapshots JOIN chain USING (snapshot_id) WHERE parent_id IS NOT NULL)
     DELETE FROM current_memberships member WHERE room_id = $1 AND NOT EXISTS (
       SELECT 1 FROM state_snapshot_entries entry WHERE entry.snapshot_id IN (SELECT snapshot_id FROM chain)
         AND entry.type = 'm.room.member' AND entry.state_key = member.user_id AND entry.event_id = member.event_id)`,
    [roomId],
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
    // From one name to the next: there are far fewer servers than members.
    `WITH RECURSIVE servers (name) AS (
       (${FIRST_SERVER} ORDER BY server_name LIMIT 1)
       UNION ALL
       SELECT (${FIRST_SERVER} AND server_name > servers.name ORDER BY server_name LIMIT 1)
       FROM servers WHERE servers.name IS NOT NULL)
     SELECT name FROM servers WHERE name IS NOT NULL`,
    [roomId],
  );
  return rows.map((row) => row.name).toSorted();
}

const FIRST_SERVER = `SELECT server_name FROM current_memberships WHERE room_id = $1 AND membership = 'join'`;

/** How many joined members of the current state each server has. */
export async function countJoinedByServer(c: Connection, roomId: RoomId): Promise<Map<ServerName, number>> {
  const rows = await queryRows<{ name: ServerName; count: number }>(
    c,
    `SELECT server_name AS name, count(*)::integer AS count FROM current_memberships
     WHERE room_id = $1 AND membership = 'join' GROUP BY server_name`,
    [roomId],
  );
  return new Map(rows.map(({ name, count }) => [name, count]));
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
