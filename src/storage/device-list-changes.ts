import type { RoomId, ServerName, UserId } from "../matrix/identifiers.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";
import type { StreamRange } from "./streams.ts";

/** A change of one of our users' devices that other servers are told. */
export interface LocalDeviceChange {
  readonly streamId: bigint;
  readonly userId: UserId;
  /** Null: of the cross-signing keys. */
  readonly deviceId: string | null;
  /** The user's change of a device before this one, to which an update refers. */
  readonly prevStreamId: bigint | null;
  readonly told: readonly ServerName[];
}

const CHANGE_COLUMNS = `change.stream_id AS "streamId", change.user_id AS "userId", change.device_id AS "deviceId",
  change.prev_stream_id AS "prevStreamId", change.told`;

/** Has clients be told that these users' devices or cross-signing keys have changed. */
export async function noteDeviceListChanges(
  tx: Connection,
  streamId: bigint,
  userIds: readonly UserId[],
): Promise<void> {
  await execute(
    tx,
    `INSERT INTO device_list_changes (user_id, stream_id) SELECT DISTINCT unnest($2::text[]), $1::bigint
     ON CONFLICT (user_id) DO UPDATE SET stream_id = EXCLUDED.stream_id`,
    [streamId, userIds],
  );
}

/** The newest change of a user's devices, by which their list is known to others; null if none has ever changed. */
export async function newestDeviceChange(c: Connection, userId: UserId): Promise<bigint | null> {
  const row = await queryRow<{ newest: bigint | null }>(
    c,
    `SELECT max(stream_id) AS newest FROM local_device_changes WHERE user_id = $1 AND device_id IS NOT NULL`,
    [userId],
  );
  return row?.newest ?? null;
}

/**
 * Notes a change and who is told of it. The user's older ones are forgotten once no resync can find a server that was
 * not told of them.
 */
export async function appendLocalDeviceChange(tx: Connection, change: LocalDeviceChange): Promise<void> {
  const { streamId, userId, deviceId, prevStreamId, told } = change;
  await execute(
    tx,
    `INSERT INTO local_device_changes (stream_id, user_id, device_id, prev_stream_id, told)
     VALUES ($1, $2, $3, $4, $5)`,
    [streamId, userId, deviceId, prevStreamId, told],
  );
  await execute(
    tx,
    `DELETE FROM local_device_changes old WHERE user_id = $1
     AND stream_id <= coalesce((SELECT min(device_lists_stream_id) FROM partial_state_rooms), $2)
     AND EXISTS (SELECT 1 FROM local_device_changes newer WHERE newer.user_id = old.user_id
       AND newer.stream_id > old.stream_id AND (newer.device_id IS NULL) = (old.device_id IS NULL))`,
    [userId, streamId],
  );
}

/**
 * The servers that share a room with the user: those with a joined member, and in a partial room also those of which
 * we were told that they are in it.
 */
export async function serversSharingRoomsWith(c: Connection, userId: UserId): Promise<readonly ServerName[]> {
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `WITH rooms_of_user AS (
       SELECT room_id FROM current_memberships WHERE user_id = $1 AND membership = 'join')
     SELECT server_name AS name FROM current_memberships JOIN rooms_of_user USING (room_id) WHERE membership = 'join'
     UNION SELECT server_name FROM partial_state_rooms_servers JOIN rooms_of_user USING (room_id)`,
    [userId],
  );
  return rows.map((row) => row.name).toSorted();
}

/** The changes since a position whose user was in the room at the time, oldest first. */
export async function deviceChangesInRoom(
  c: Connection,
  roomId: RoomId,
  since: bigint,
): Promise<readonly LocalDeviceChange[]> {
  return queryRows<LocalDeviceChange & { streamId: bigint }>(
    c,
    `SELECT ${CHANGE_COLUMNS} FROM local_device_changes change
     WHERE change.stream_id > $2 AND 'join' = (
       SELECT membership FROM local_membership_stream standing
       WHERE standing.user_id = change.user_id AND standing.room_id = $1 AND standing.stream_id <= change.stream_id
       ORDER BY standing.stream_id DESC LIMIT 1)
     ORDER BY change.stream_id`,
    [roomId, since],
  );
}

export async function addToldServers(tx: Connection, streamId: bigint, servers: readonly ServerName[]): Promise<void> {
  await execute(tx, `UPDATE local_device_changes SET told = told || $2::text[] WHERE stream_id = $1`, [
    streamId,
    servers,
  ]);
}

/** The servers of whose users a membership in the room was changed since a position, by an accepted event. */
export async function serversWithMembershipEvents(
  c: Connection,
  roomId: RoomId,
  since: bigint,
): Promise<readonly ServerName[]> {
  const rows = await queryRows<{ name: ServerName }>(
    c,
    `SELECT DISTINCT substr(state_key, strpos(state_key, ':') + 1) AS name FROM events
     WHERE room_id = $1 AND stream_id > $2 AND type = 'm.room.member' AND rejection IS NULL AND state_key LIKE '@%:%'`,
    [roomId, since],
  );
  return rows.map((row) => row.name).toSorted();
}

// ── What a client is told ───────────────────────────────────────────────────────────────────────────────────────────

/** Users whose devices have changed within the range, of those that share a room with the user, and the user too. */
export async function changedDeviceLists(
  c: Connection,
  userId: UserId,
  range: StreamRange,
): Promise<readonly UserId[]> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT user_id AS id FROM device_list_changes change WHERE stream_id > $2 AND stream_id <= $3
     AND (user_id = $1 OR EXISTS (
       SELECT 1 FROM current_memberships theirs JOIN current_memberships own USING (room_id)
       WHERE theirs.user_id = change.user_id AND theirs.membership = 'join'
         AND own.user_id = $1 AND own.membership = 'join'))`,
    [userId, range.from, range.to],
  );
  return rows.map((row) => row.id);
}

/** Those of the users who share a joined room with the user. */
export async function usersSharingRoomsWith(
  c: Connection,
  userId: UserId,
  others: readonly UserId[],
): Promise<ReadonlySet<UserId>> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT DISTINCT theirs.user_id AS id FROM current_memberships theirs JOIN current_memberships own USING (room_id)
     WHERE theirs.user_id = ANY ($2::text[]) AND theirs.membership = 'join'
       AND own.user_id = $1 AND own.membership = 'join'`,
    [userId, others],
  );
  return new Set(rows.map((row) => row.id));
}

interface MembershipTurn {
  readonly userId: UserId;
  /** Null: none that we know of. */
  readonly before: string | null;
  readonly after: string | null;
}

/** Whose memberships in the rooms have changed within the range, and between what. */
export async function membershipTurns(
  c: Connection,
  roomIds: readonly RoomId[],
  range: StreamRange,
): Promise<readonly MembershipTurn[]> {
  return queryRows<{ userId: UserId; before: string | null; after: string | null }>(
    c,
    `SELECT changed.state_key AS "userId", (
       SELECT membership FROM current_state_delta_stream earlier LEFT JOIN events USING (event_id)
       WHERE earlier.room_id = changed.room_id AND earlier.type = 'm.room.member'
         AND earlier.state_key = changed.state_key AND earlier.stream_id <= $2
       ORDER BY earlier.stream_id DESC LIMIT 1) AS before, (
       SELECT membership FROM current_memberships
       WHERE room_id = changed.room_id AND user_id = changed.state_key) AS after
     FROM (SELECT DISTINCT room_id, state_key FROM current_state_delta_stream
       WHERE room_id = ANY ($1::text[]) AND type = 'm.room.member' AND stream_id > $2 AND stream_id <= $3) changed`,
    [roomIds, range.from, range.to],
  );
}

/** The joined members of the rooms. */
export async function joinedMembersOf(c: Connection, roomIds: readonly RoomId[]): Promise<readonly UserId[]> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT DISTINCT user_id AS id FROM current_memberships WHERE room_id = ANY ($1::text[]) AND membership = 'join'`,
    [roomIds],
  );
  return rows.map((row) => row.id);
}
