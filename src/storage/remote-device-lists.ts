import { serverNameOf, type RoomId, type ServerName, type UserId } from "../matrix/identifiers.ts";
import { parseJson, stringifyJson, type JsonObject } from "../matrix/json.ts";
import { execute, queryRow, queryRows, type Connection } from "./query.ts";

/** What we know of the devices of another server's user, once somebody has asked for them. */
export interface RemoteDeviceList {
  /** Of the last update that is in it; null if the list was never fetched. */
  readonly streamId: bigint | null;
  /** An update was missed: the list must be fetched anew. */
  readonly stale: boolean;
  readonly generation: bigint;
}

export interface RemoteDevice {
  readonly userId: UserId;
  readonly deviceId: string;
  readonly displayName: string | null;
  readonly keys: JsonObject;
}

const LIST_COLUMNS = `stream_id AS "streamId", stale, generation`;

/** Joined members of rooms in which one of our users is joined, of those given. */
const SHARES_A_ROOM = `EXISTS (
  SELECT 1 FROM current_memberships theirs JOIN current_memberships own USING (room_id)
  WHERE theirs.user_id = list.user_id AND theirs.membership = 'join'
    AND own.server_name = $1 AND own.membership = 'join')`;

/** Whether the user is known to be in a room with one of ours. */
export async function sharesRoomWithUs(c: Connection, userId: UserId, ourServer: ServerName): Promise<boolean> {
  const row = await queryRow(c, `SELECT 1 FROM (SELECT $2::text AS user_id) list WHERE ${SHARES_A_ROOM}`, [
    ourServer,
    userId,
  ]);
  return row !== undefined;
}

/** Those of the users whose list is fresh; of no one else are updates applied. */
export async function freshRemoteDeviceLists(c: Connection, userIds: readonly UserId[]): Promise<ReadonlySet<UserId>> {
  const rows = await queryRows<{ id: UserId }>(
    c,
    `SELECT user_id AS id FROM remote_device_lists WHERE user_id = ANY ($1::text[]) AND NOT stale`,
    [userIds],
  );
  return new Set(rows.map((row) => row.id));
}

export async function remoteDeviceList(c: Connection, userId: UserId): Promise<RemoteDeviceList | undefined> {
  return queryRow<RemoteDeviceList & { stale: boolean }>(
    c,
    `SELECT ${LIST_COLUMNS} FROM remote_device_lists WHERE user_id = $1`,
    [userId],
  );
}

/**
 * As {@link remoteDeviceList}, locked until the transaction ends. Take a stream position before: whoever applies a
 * change of a room has one when it comes to these rows.
 */
export async function lockRemoteDeviceList(tx: Connection, userId: UserId): Promise<RemoteDeviceList | undefined> {
  return queryRow<RemoteDeviceList & { stale: boolean }>(
    tx,
    `SELECT ${LIST_COLUMNS} FROM remote_device_lists WHERE user_id = $1 FOR UPDATE`,
    [userId],
  );
}

/**
 * Begins to keep the list of a user that is in a room with one of ours; it is stale until it is stored. Undefined for
 * a user who is in none.
 */
export async function trackRemoteDeviceList(
  tx: Connection,
  userId: UserId,
  ourServer: ServerName,
): Promise<RemoteDeviceList | undefined> {
  const shared = await queryRow(
    tx,
    // Locked: a leave waits, and then finds the list and deletes it.
    `SELECT 1 FROM current_memberships theirs JOIN current_memberships own USING (room_id)
     WHERE theirs.user_id = $2 AND theirs.membership = 'join' AND own.server_name = $1 AND own.membership = 'join'
     LIMIT 1 FOR SHARE`,
    [ourServer, userId],
  );
  if (shared === undefined) return undefined;
  await execute(
    tx,
    `INSERT INTO remote_device_lists (user_id, stream_id, stale, generation) VALUES ($1, NULL, true, 0)
     ON CONFLICT DO NOTHING`,
    [userId],
  );
  return remoteDeviceList(tx, userId);
}

/** What was asked for before now is no more fresh when it comes. */
export async function markRemoteDeviceListStale(tx: Connection, userId: UserId): Promise<void> {
  await execute(tx, `UPDATE remote_device_lists SET stale = true, generation = generation + 1 WHERE user_id = $1`, [
    userId,
  ]);
}

/**
 * Stores a list as its server told it. It is fresh if nothing has made it stale since it was asked for.
 *
 * @returns whether it is fresh now
 */
export async function storeRemoteDeviceList(
  tx: Connection,
  userId: UserId,
  list: {
    readonly streamId: bigint;
    readonly generation: bigint;
    readonly devices: readonly Omit<RemoteDevice, "userId">[];
  },
): Promise<boolean> {
  const fresh = await execute(
    tx,
    `UPDATE remote_device_lists SET stream_id = $2, stale = false WHERE user_id = $1 AND generation = $3`,
    [userId, list.streamId, list.generation],
  );
  if (fresh === 0) return false;
  await execute(tx, `DELETE FROM remote_devices WHERE user_id = $1`, [userId]);
  for (const device of list.devices) await upsertRemoteDevice(tx, { userId, ...device });
  return true;
}

/** Applies one update to a list that lacks none before it. Without keys nobody can encrypt to the device. */
export async function updateRemoteDevice(
  tx: Connection,
  device: Omit<RemoteDevice, "keys"> & { readonly keys: JsonObject | undefined },
  streamId: bigint,
): Promise<void> {
  const { userId, deviceId, keys } = device;
  if (keys === undefined) {
    await execute(tx, `DELETE FROM remote_devices WHERE user_id = $1 AND device_id = $2`, [userId, deviceId]);
  } else {
    await upsertRemoteDevice(tx, { ...device, keys });
  }
  await execute(tx, `UPDATE remote_device_lists SET stream_id = $2 WHERE user_id = $1`, [userId, streamId]);
}

async function upsertRemoteDevice(tx: Connection, device: RemoteDevice): Promise<void> {
  await execute(
    tx,
    `INSERT INTO remote_devices (user_id, device_id, display_name, keys) VALUES ($1, $2, $3, $4)
     ON CONFLICT (user_id, device_id) DO UPDATE SET display_name = EXCLUDED.display_name, keys = EXCLUDED.keys`,
    [device.userId, device.deviceId, device.displayName, stringifyJson(device.keys)],
  );
}

/** In the order of users and ids. */
export async function loadRemoteDevices(c: Connection, userIds: readonly UserId[]): Promise<readonly RemoteDevice[]> {
  const rows = await queryRows<{ userId: UserId; deviceId: string; displayName: string | null; keys: string }>(
    c,
    `SELECT user_id AS "userId", device_id AS "deviceId", display_name AS "displayName", keys FROM remote_devices
     WHERE user_id = ANY ($1::text[]) ORDER BY user_id COLLATE "C", device_id COLLATE "C"`,
    [userIds],
  );
  return rows.map((row) => ({ ...row, keys: parseJson(row.keys) as JsonObject }));
}

/**
 * Tracks no longer those of the users who are now in no room with one of ours: their updates don't come to us any more.
 * Where one of our users has left, that may be anyone in the room.
 */
export async function forgetUnsharedDeviceLists(
  tx: Connection,
  roomId: RoomId,
  { departed, ourServer }: { readonly departed: readonly UserId[]; readonly ourServer: ServerName },
): Promise<void> {
  const oursLeft = departed.some((userId) => serverNameOf(userId) === ourServer);
  await execute(
    tx,
    forgetting(
      `(user_id = ANY ($2::text[])
         OR ($3::boolean AND user_id IN (SELECT user_id FROM current_memberships WHERE room_id = $4)))`,
    ),
    [ourServer, departed, oursLeft, roomId],
  );
}

/** The same for all users, after memberships were deleted. */
export async function forgetAllUnsharedDeviceLists(tx: Connection, ourServer: ServerName): Promise<void> {
  await execute(tx, forgetting("true"), [ourServer]);
}

function forgetting(condition: string): string {
  return `WITH gone AS (DELETE FROM remote_device_lists list WHERE NOT ${SHARES_A_ROOM} AND ${condition} RETURNING user_id)
    DELETE FROM cross_signing_keys USING gone WHERE cross_signing_keys.user_id = gone.user_id`;
}

// ── Updates of users who may turn out to be in a partial room ───────────────────────────────────────────────────────

export interface PendingDeviceUpdate {
  readonly userId: UserId;
  readonly serverName: ServerName;
  readonly eduType: string;
  /** Empty: of the cross-signing keys. */
  readonly deviceId: string;
  readonly content: JsonObject;
}

/** Whether the server is believed to be in a room of ours that is partial, where its users may be unknown to us. */
export async function isInPartialRoom(c: Connection, serverName: ServerName): Promise<boolean> {
  const row = await queryRow(
    c,
    `SELECT 1 FROM partial_state_rooms_servers WHERE server_name = $1
     UNION ALL SELECT 1 FROM partial_state_rooms JOIN current_memberships USING (room_id)
       WHERE server_name = $1 AND membership = 'join' LIMIT 1`,
    [serverName],
  );
  return row !== undefined;
}

/** Of one server's users so many are kept; nobody has them, and all members are news to clients in the end anyway. */
const MOST_KEPT_OF_A_SERVER = 10_000;

/** Keeps an update, the newest of each device: what it replaces will be missed, and the list fetched anew. */
export async function keepDeviceUpdate(tx: Connection, update: PendingDeviceUpdate): Promise<void> {
  await execute(
    tx,
    `INSERT INTO pending_device_updates (user_id, server_name, edu_type, device_id, content)
     SELECT $1, $2, $3, $4, $5 WHERE $6 > (SELECT count(*) FROM pending_device_updates WHERE server_name = $2)
     ON CONFLICT (user_id, edu_type, device_id) DO UPDATE SET content = EXCLUDED.content`,
    [
      update.userId,
      update.serverName,
      update.eduType,
      update.deviceId,
      stringifyJson(update.content),
      MOST_KEPT_OF_A_SERVER,
    ],
  );
}

/** Takes the kept updates of the users who are joined members of the room. */
export async function takePendingDeviceUpdates(
  tx: Connection,
  roomId: RoomId,
): Promise<readonly PendingDeviceUpdate[]> {
  const rows = await queryRows<Omit<PendingDeviceUpdate, "content"> & { content: string }>(
    tx,
    // Those that are kept are far fewer than the members.
    `DELETE FROM pending_device_updates kept WHERE (
       SELECT true FROM current_memberships member
       WHERE member.room_id = $1 AND member.user_id = kept.user_id AND member.membership = 'join')
     RETURNING user_id AS "userId", server_name AS "serverName",
       edu_type AS "eduType", device_id AS "deviceId", content`,
    [roomId],
  );
  return rows.map((row) => ({ ...row, content: parseJson(row.content) as JsonObject }));
}

/** Forgets what was kept of users of servers that are in no other partial room than this one. */
export async function forgetPendingDeviceUpdates(tx: Connection, roomId: RoomId): Promise<void> {
  await execute(
    tx,
    `DELETE FROM pending_device_updates kept WHERE NOT EXISTS (
       SELECT 1 FROM partial_state_rooms_servers WHERE room_id <> $1 AND server_name = kept.server_name)
     AND NOT EXISTS (
       SELECT 1 FROM partial_state_rooms JOIN current_memberships USING (room_id)
       WHERE room_id <> $1 AND server_name = kept.server_name AND membership = 'join')`,
    [roomId],
  );
}
