import { MatrixError } from "../../federation-api/matrix-error.ts";
import type { JsonObject } from "../../matrix/json.ts";
import { lockDevice, type Session } from "../../storage/accounts.ts";
import type { Connection } from "../../storage/database.ts";
import {
  addOneTimeKeys,
  countOneTimeKeys,
  setFallbackKeys,
  storeDeviceKeys,
  type NamedKey,
} from "../../storage/device-keys.ts";
import { announceDeviceChanges, type DevicesContext } from "./announce-device-changes.ts";
import { commit } from "../failpoints.ts";

interface KeysUpload {
  readonly deviceKeys?: JsonObject | undefined;
  readonly oneTimeKeys: readonly NamedKey[];
  readonly fallbackKeys: readonly NamedKey[];
}

/**
 * Takes what a device publishes so that others can encrypt to it. Signatures are stored as uploaded: those who use the
 * keys check them.
 *
 * @returns how many one-time keys the device has now, by algorithm
 * @throws MatrixError 400 M_INVALID_PARAM for keys of another device, and where a one-time key's name stands for
 *   another key already; 401 M_UNKNOWN_TOKEN for a device that was logged out meanwhile
 * @see https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
 */
export async function uploadKeys(
  ctx: DevicesContext,
  device: Session,
  upload: KeysUpload,
): Promise<Readonly<Record<string, number>>> {
  checkOwner(device, upload.deviceKeys);
  return await commit(ctx, "store device keys", async (tx) => {
    if (!(await lockDevice(tx, device))) {
      throw new MatrixError(401, "M_UNKNOWN_TOKEN", "The device was logged out", { soft_logout: false });
    }
    await addAll(tx, device, upload);
    const counts = await countOneTimeKeys(tx, device);
    const changed = upload.deviceKeys !== undefined && (await storeDeviceKeys(tx, device, upload.deviceKeys));
    if (changed) await announceDeviceChanges(ctx, tx, { userId: device.userId, changed: [device.deviceId] });
    return counts;
  });
}

function checkOwner({ userId, deviceId }: Session, keys: JsonObject | undefined): void {
  if (keys === undefined || (keys["user_id"] === userId && keys["device_id"] === deviceId)) return;
  throw new MatrixError(400, "M_INVALID_PARAM", `device_keys: not those of ${userId}'s device ${deviceId}`);
}

async function addAll(tx: Connection, device: Session, upload: KeysUpload): Promise<void> {
  const [other] = upload.oneTimeKeys.length === 0 ? [] : await addOneTimeKeys(tx, device, upload.oneTimeKeys);
  if (other !== undefined) {
    const name = `${other.algorithm}:${other.keyId}`;
    throw new MatrixError(400, "M_INVALID_PARAM", `one_time_keys: ${name} is the name of another key already`);
  }
  if (upload.fallbackKeys.length > 0) await setFallbackKeys(tx, device, upload.fallbackKeys);
}
