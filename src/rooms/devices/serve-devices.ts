import { MatrixError } from "../../federation-api/matrix-error.ts";
import { serverNameOf, type UserId } from "../../matrix/identifiers.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { userExists } from "../../storage/accounts.ts";
import { newestDeviceChange } from "../../storage/device-list-changes.ts";
import { masterAndSelfSigning, type DevicesContext } from "./announce-device-changes.ts";
import { claimOurKeys, type WantedOneTimeKeys } from "./claim-keys.ts";
import { keysOfOurUsers } from "./known-keys.ts";

/**
 * The devices of one of our users that others can encrypt to, and the last update that is in the list.
 *
 * @throws MatrixError 404 M_NOT_FOUND
 * @see https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
 */
export async function serveUserDevices(ctx: DevicesContext, userId: UserId): Promise<JsonObject> {
  if (serverNameOf(userId) !== ctx.serverName || !(await userExists(ctx.database, userId))) {
    throw new MatrixError(404, "M_NOT_FOUND", `${userId} is not a user of this server`);
  }
  const { pool } = ctx.database;
  // Before the devices: an update that comes in between is in the list already and is told again, but not missed.
  const streamId = await newestDeviceChange(pool, userId);
  const keys = (await keysOfOurUsers(pool, [userId])).get(userId);
  return {
    user_id: userId,
    stream_id: Number(streamId ?? 0n),
    devices: (keys?.devices ?? []).map((device) => ({ device_id: device.deviceId, keys: device.keys })),
    ...masterAndSelfSigning(keys?.crossSigning ?? {}),
  };
}

/**
 * The keys of our users: of the devices that are named, or of all. Other servers' users are left out.
 *
 * @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery
 */
export async function serveKeysQuery(
  ctx: DevicesContext,
  wanted: ReadonlyMap<UserId, readonly string[]>,
): Promise<JsonObject> {
  const ours = ourUsers(ctx, wanted);
  const known = [...(await keysOfOurUsers(ctx.database.pool, [...ours.keys()]))];
  const devices = known.map(([userId, keys]) => {
    const ids = ours.get(userId) ?? [];
    const chosen = keys.devices.filter(({ deviceId }) => ids.length === 0 || ids.includes(deviceId));
    return [userId, Object.fromEntries(chosen.map((device) => [device.deviceId, device.keys]))];
  });
  const ofUsage = (usage: "master" | "self_signing"): JsonObject =>
    Object.fromEntries(
      known.flatMap(
        ([
          userId,
          {
            crossSigning: { [usage]: key },
          },
        ]) => (key ? [[userId, key]] : []),
      ),
    );
  return {
    device_keys: Object.fromEntries(devices) as JsonObject,
    master_keys: ofUsage("master"),
    self_signing_keys: ofUsage("self_signing"),
  };
}

/** @see https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim */
export async function serveKeysClaim(ctx: DevicesContext, wanted: WantedOneTimeKeys): Promise<JsonObject> {
  return { one_time_keys: await claimOurKeys(ctx, ourUsers(ctx, wanted)) };
}

function ourUsers<T>(ctx: DevicesContext, wanted: ReadonlyMap<UserId, T>): ReadonlyMap<UserId, T> {
  return new Map([...wanted].filter(([userId]) => serverNameOf(userId) === ctx.serverName));
}
