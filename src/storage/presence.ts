import { serverNameOf, type RoomId, type ServerName, type UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { StreamRange } from "./streams.ts";

export type PresenceState = "online" | "unavailable" | "offline";

/** Times are milliseconds since the epoch. */
export interface Presence {
  readonly userId: UserId;
  readonly presence: PresenceState;
  readonly statusMsg: string | null;
  readonly lastActiveAt: number;
  readonly currentlyActive: boolean;
  /** Offline from then on, unless heard of before. */
  readonly onlineUntil: number;
  /** When other servers were told, of a user of ours. */
  readonly toldAt: number | null;
}

interface PresenceRow {
  readonly userId: UserId;
  readonly presence: PresenceState;
  readonly statusMsg: string | null;
  readonly lastActiveAt: Date;
  readonly currentlyActive: boolean;
  readonly onlineUntil: Date;
  readonly toldAt: Date | null;
}

/** What {@link presenceOf} reads, of the table `presence`. */
export const PRESENCE_COLUMNS = `presence.user_id AS "userId", presence, status_msg AS "statusMsg", last_active_at AS "lastActiveAt",
  currently_active AS "currentlyActive", online_until AS "onlineUntil", told_at AS "toldAt"`;

export function presenceOf(row: PresenceRow): Presence {
  return {
    ...row,
    lastActiveAt: row.lastActiveAt.getTime(),
    onlineUntil: row.onlineUntil.getTime(),
    toldAt: row.toldAt?.getTime() ?? null,
  };
}

export async function loadPresence(c: Connection, userId: UserId): Promise<Presence | undefined> {
  const row = await queryRow<PresenceRow>(c, `SELECT ${PRESENCE_COLUMNS} FROM presence WHERE user_id = $1`, [userId]);
  return row && presenceOf(row);
}

/** The same, locked until the transaction ends. */
export async function lockPresence(tx: Connection, userId: UserId): Promise<Presence | undefined> {
  const row = await queryRow<PresenceRow>(
    tx,
    `SELECT ${PRESENCE_COLUMNS} FROM presence WHERE user_id = $1 FOR UPDATE`,
    [userId],
  );
  return row && presenceOf(row);
}

/** Stores a change that clients are to see. */
export async function storePresence(tx: Connection, presence: Presence, streamId: bigint): Promise<void> {
  await execute(
    tx,
    `INSERT INTO presence (user_id, server_name, presence, status_msg, last_active_at, currently_active, online_until,
       told_at, stream_id)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (user_id) DO UPDATE SET presence = EXCLUDED.presence, status_msg = EXCLUDED.status_msg,
       last_active_at = EXCLUDED.last_active_at, currently_active = EXCLUDED.currently_active,
       online_until = EXCLUDED.online_until, told_at = EXCLUDED.told_at, stream_id = EXCLUDED.stream_id`,
    [
      presence.userId,
      serverNameOf(presence.userId) ?? "",
      presence.presence,
      presence.statusMsg,
      new Date(presence.lastActiveAt),
      presence.currentlyActive,
      new Date(presence.onlineUntil),
      presence.toldAt === null ? null : new Date(presence.toldAt),
      streamId,
    ],
  );
}

/** Notes what clients are not woken for: that the user has been heard of again. */
export async function prolongPresence(
  c: Connection,
  { userId, lastActiveAt, onlineUntil, toldAt }: Omit<Presence, "presence" | "statusMsg" | "currentlyActive">,
): Promise<void> {
  await execute(c, `UPDATE presence SET last_active_at = $2, online_until = $3, told_at = $4 WHERE user_id = $1`, [
    userId,
    new Date(lastActiveAt),
    new Date(onlineUntil),
    toldAt === null ? null : new Date(toldAt),
  ]);
}

// ── Who may see whom ────────────────────────────────────────────────────────────────────────────────────────────────

/** A room in which both are joined. */
const MEET = `EXISTS (
  SELECT FROM current_memberships mine JOIN current_memberships theirs USING (room_id)
  WHERE mine.membership = 'join' AND theirs.membership = 'join' AND theirs.user_id = presence.user_id AND `;

/** A partial room of ours in which their server is, and where it is not known whether they are. */
const MAY_MEET = `EXISTS (
  SELECT FROM partial_state_rooms partial JOIN current_memberships mine USING (room_id)
  WHERE mine.membership = 'join'
    AND (EXISTS (SELECT FROM partial_state_rooms_servers listed
           WHERE listed.room_id = partial.room_id AND listed.server_name = presence.server_name)
      OR EXISTS (SELECT FROM current_memberships known WHERE known.room_id = partial.room_id
           AND known.membership = 'join' AND known.server_name = presence.server_name))
    AND NOT EXISTS (SELECT FROM current_memberships known
      WHERE known.room_id = partial.room_id AND known.user_id = presence.user_id) AND `;

export type Acquaintance = "joined" | "maybe-joined" | "none";

/** Whether a user shares a room with one of ours, with any or with a given one. */
export async function acquaintanceOf(
  c: Connection,
  userId: UserId,
  ours: { readonly serverName: ServerName } | { readonly userId: UserId },
): Promise<Acquaintance> {
  const [column, value] = "userId" in ours ? ["user_id", ours.userId] : ["server_name", ours.serverName];
  const row = await queryRow<{ meet: boolean; mayMeet: boolean }>(
    c,
    `SELECT ${MEET} mine.${column} = $3) AS meet, ${MAY_MEET} mine.${column} = $3) AS "mayMeet"
     FROM (SELECT $1 AS user_id, $2 AS server_name) AS presence`,
    [userId, serverNameOf(userId) ?? "", value],
  );
  if (row?.meet === true) return "joined";
  return row?.mayMeet === true ? "maybe-joined" : "none";
}

/** More than a client shows when it starts. */
const MAX_PRESENCE = 1_000;

/** The presence that has changed within the range of users who share a room with this one, and their own. */
export async function changedPresence(
  c: Connection,
  userId: UserId,
  range: StreamRange & { readonly withOffline: boolean },
): Promise<readonly Presence[]> {
  const rows = await queryRows<PresenceRow>(
    c,
    `SELECT ${PRESENCE_COLUMNS} FROM presence
     WHERE stream_id > $2 AND stream_id <= $3 AND ($4 OR presence <> 'offline')
       AND (user_id = $1 OR ${MEET} mine.user_id = $1) OR ${MAY_MEET} mine.user_id = $1))
     ORDER BY stream_id DESC LIMIT $5`,
    [userId, range.from, range.to, range.withOffline, MAX_PRESENCE],
  );
  return rows.map(presenceOf).toReversed();
}

/** The presence of all who are not offline and share one of these rooms with a user of ours who has just entered them. */
export async function presenceInRooms(c: Connection, roomIds: readonly RoomId[]): Promise<readonly Presence[]> {
  const rows = await queryRows<PresenceRow>(
    c,
    `SELECT DISTINCT ${PRESENCE_COLUMNS} FROM current_memberships JOIN presence USING (user_id)
     WHERE room_id = ANY ($1::text[]) AND membership = 'join' AND presence <> 'offline' LIMIT $2`,
    [roomIds, MAX_PRESENCE],
  );
  return rows.map(presenceOf);
}

/** The servers, our own included, of the rooms in which the user is joined. */
export async function serversSharingRooms(c: Connection, userId: UserId): Promise<readonly ServerName[]> {
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `WITH rooms AS (SELECT room_id FROM current_memberships WHERE user_id = $1 AND membership = 'join')
     SELECT server_name AS name FROM rooms JOIN current_memberships USING (room_id) WHERE membership = 'join'
     UNION SELECT server_name FROM rooms JOIN partial_state_rooms_servers USING (room_id)`,
    [userId],
  );
  return rows.map((row) => row.name).toSorted();
}

// ── Bounds ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/** Of a server's users, how many we believe to be members of a partial room whose membership we lack. */
const MAX_UNKNOWN_USERS = 1_000;

export async function hasPlaceForPresence(c: Connection, server: ServerName): Promise<boolean> {
  const row = await queryRow<{ count: number }>(
    c,
    `SELECT count(*)::integer AS count FROM (
       SELECT FROM presence WHERE server_name = $1
         AND NOT EXISTS (SELECT FROM current_memberships known WHERE known.user_id = presence.user_id)
       LIMIT $2) AS unknown`,
    [server, MAX_UNKNOWN_USERS],
  );
  return (row?.count ?? 0) < MAX_UNKNOWN_USERS;
}

interface PresenceDue {
  readonly now: number;
  readonly serverName: ServerName;
  /** Users of ours who were active last before this are away. */
  readonly idleBefore: number;
  /** Other servers were told of users of ours before this: they forget who they hear nothing of. */
  readonly toldBefore: number;
}

/** They have joined a room since they were told of last. */
const HAS_ENTERED = `EXISTS (
  SELECT FROM local_membership_stream entered
  WHERE entered.user_id = presence.user_id AND entered.stream_id > presence.stream_id AND membership = 'join')`;

export async function hasEnteredRoomSinceTold(c: Connection, userId: UserId): Promise<boolean> {
  const row = await queryRow(c, `SELECT FROM presence WHERE user_id = $1 AND ${HAS_ENTERED}`, [userId]);
  return row !== undefined;
}

/** Whose presence ends, or is to be told again. */
export async function usersWithPresenceDue(c: Connection, due: PresenceDue): Promise<readonly UserId[]> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT user_id AS id FROM presence WHERE presence <> 'offline' AND (online_until <= $1
       OR (server_name = $2 AND presence = 'online' AND last_active_at <= $3)
       OR (server_name = $2 AND told_at <= $4)
       OR (server_name = $2 AND ${HAS_ENTERED}))`,
    [new Date(due.now), due.serverName, new Date(due.idleBefore), new Date(due.toldBefore)],
  );
  return rows.map((row) => row.id);
}

/** Forgets other servers' users who are offline and were active last before `before` (milliseconds). */
export async function forgetPresence(c: Connection, serverName: ServerName, before: number): Promise<number> {
  return execute(c, `DELETE FROM presence WHERE presence = 'offline' AND server_name <> $1 AND last_active_at < $2`, [
    serverName,
    new Date(before),
  ]);
}
